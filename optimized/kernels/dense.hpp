// The dense family: what a model does between its attention layers, on tensors of one rank.
//
// Shapes     Activations [n, B, h, C]: n tokens of this rank, a row is what lies along the last axis.
//            Matrices [to, 1, 1, from], vectors [1, 1, 1, C]. All tensors are contiguous.
// Types      Activations and weights hold the storage type or the accumulator type (f32, or f64 where
//            a tensor is f64); sums, gradients and statistics the accumulator type. Arithmetic is in
//            the accumulator type, and a result is rounded once.
// Gradients  of parameters and of what several operations read are added to what the tensor holds; the
//            others overwrite. Every function says which.
// Order      Sums over tokens run in the order of rows, whatever the shape.
// Equations  reference/model/README.md; charging and counting as in kernels.hpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "optimized/kernels/account.hpp"
#include "optimized/sharding/tokens.hpp"
#include "optimized/tensor.hpp"

namespace sp {

// What a norm keeps of every row for its gradient, [n, B, h, 1] in the accumulator type.
struct NormRows {
  Tensor mean;     // undefined: RMS norm
  Tensor inverse;  // 1 / sqrt(variance, or mean square, + epsilon)
};

enum class Activation : std::uint8_t { kSilu, kGelu, kTanh, kLogSigmoid };

// One update of AdamW (reference/model/optimizer.hpp), its scalars settled.
struct AdamStep {
  double rate = 0;             // of this step
  double decay = 0;            // of weights; 0 for what does not decay
  double gradient_factor = 1;  // of clipping
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double first_bias = 1, second_bias = 1;  // 1 - beta^t
};

class DenseKernels : public KernelAccount {
 public:
  // y = x weightT + bias: x [n, B, 1, from], y [n, B, 1, to], bias [1, 1, 1, to] or undefined.
  void product(const Tensor& y, const Tensor& x, const Tensor& weight, const Tensor& bias);
  void product_d_x(const Tensor& d_x, const Tensor& d_y, const Tensor& weight);  // +=
  // Both +=; d_bias undefined where there is none.
  void product_d_weight(const Tensor& d_weight, const Tensor& d_bias, const Tensor& d_y,
                        const Tensor& x);

  // y = (x - mean) inverse gain + bias of every row; without rows.mean neither mean nor bias.
  void norm(const Tensor& y, const Tensor& x, const Tensor& gain, const Tensor& bias,
            const NormRows& rows, double epsilon);
  // d_x, d_gain and d_bias +=.
  void norm_backward(const Tensor& d_x, const Tensor& d_gain, const Tensor& d_bias,
                     const Tensor& d_y, const Tensor& x, const Tensor& gain, const NormRows& rows);

  // Rotary positions on every head of x [n, B, H, D], D even: channels c and c + D/2 turn by sign
  // position base^(-2c/D); sign is 1, or -1 for gradients. Overwrites y, which may be x.
  void rotate(const Tensor& y, const Tensor& x, const Tokens& tokens, double base, int sign);

  // y = factor f(x); d_x = factor f'(x) d_y. Overwrite; y may be x, and d_x d_y.
  void activate(const Tensor& y, const Tensor& x, Activation f, double factor = 1);
  void activate_backward(const Tensor& d_x, const Tensor& d_y, const Tensor& x, Activation f,
                         double factor = 1);
  // y = silu(gates) x, element by element, and its gradients. Overwrite.
  void gate(const Tensor& y, const Tensor& gates, const Tensor& x);
  void gate_backward(const Tensor& d_gates, const Tensor& d_x, const Tensor& d_y,
                     const Tensor& gates, const Tensor& x);

  // y[i] += table[ids[i] - first] for ids [n, B, 1, 1] in i32 within the table, [rows, 1, 1, C], which
  // may be a part of the vocabulary; others add nothing.
  void embed(const Tensor& y, const Tensor& table, const Tensor& ids, std::int64_t first);
  void embed_backward(const Tensor& d_table, const Tensor& d_y, const Tensor& ids,
                      std::int64_t first);  // d_table +=

  // Of logits [n, B, 1, V'], a part of the vocabulary that begins at `first`: the log-sum-exp of every
  // row, and its target's logit, 0 where the target lies elsewhere. Both [n, B, 1, 1]; overwrite.
  void vocabulary_rows(const Tensor& lse, const Tensor& picked, const Tensor& logits,
                       const Tensor& targets, std::int64_t first);
  // loss [1, 1, 1, 1] += sum of weights (lse - picked), with lse over the whole vocabulary; rows of
  // weight 0 have no part.
  void cross_entropy(const Tensor& loss, const Tensor& lse, const Tensor& picked,
                     const Tensor& weights);
  // d_logits = weights (softmax - 1 at the target). Overwrites; may be the logits.
  void cross_entropy_backward(const Tensor& d_logits, const Tensor& logits, const Tensor& lse,
                              const Tensor& targets, const Tensor& weights, std::int64_t first);

  // sum [1, 1, 1, 1] += sum of squares.
  void add_squares(const Tensor& sum, const Tensor& x);
  // In place; all four of the accumulator type and one shape.
  void adamw(const Tensor& parameter, const Tensor& first, const Tensor& second,
             const Tensor& gradient, const AdamStep& step);

 protected:
  virtual void do_product(const Tensor& y, const Tensor& x, const Tensor& weight,
                          const Tensor& bias) = 0;
  virtual void do_product_d_x(const Tensor& d_x, const Tensor& d_y, const Tensor& weight) = 0;
  virtual void do_product_d_weight(const Tensor& d_weight, const Tensor& d_bias, const Tensor& d_y,
                                   const Tensor& x) = 0;
  virtual void do_norm(const Tensor& y, const Tensor& x, const Tensor& gain, const Tensor& bias,
                       const NormRows& rows, double epsilon) = 0;
  virtual void do_norm_backward(const Tensor& d_x, const Tensor& d_gain, const Tensor& d_bias,
                                const Tensor& d_y, const Tensor& x, const Tensor& gain,
                                const NormRows& rows) = 0;
  virtual void do_rotate(const Tensor& y, const Tensor& x, const Tokens& tokens, double base,
                         int sign) = 0;
  virtual void do_activate(const Tensor& y, const Tensor& x, Activation f, double factor) = 0;
  virtual void do_activate_backward(const Tensor& d_x, const Tensor& d_y, const Tensor& x,
                                    Activation f, double factor) = 0;
  virtual void do_gate(const Tensor& y, const Tensor& gates, const Tensor& x) = 0;
  virtual void do_gate_backward(const Tensor& d_gates, const Tensor& d_x, const Tensor& d_y,
                                const Tensor& gates, const Tensor& x) = 0;
  virtual void do_embed(const Tensor& y, const Tensor& table, const Tensor& ids,
                        std::int64_t first) = 0;
  virtual void do_embed_backward(const Tensor& d_table, const Tensor& d_y, const Tensor& ids,
                                 std::int64_t first) = 0;
  virtual void do_vocabulary_rows(const Tensor& lse, const Tensor& picked, const Tensor& logits,
                                  const Tensor& targets, std::int64_t first) = 0;
  virtual void do_cross_entropy(const Tensor& loss, const Tensor& lse, const Tensor& picked,
                                const Tensor& weights) = 0;
  virtual void do_cross_entropy_backward(const Tensor& d_logits, const Tensor& logits,
                                         const Tensor& lse, const Tensor& targets,
                                         const Tensor& weights, std::int64_t first) = 0;
  virtual void do_add_squares(const Tensor& sum, const Tensor& x) = 0;
  virtual void do_adamw(const Tensor& parameter, const Tensor& first, const Tensor& second,
                        const Tensor& gradient, const AdamStep& step) = 0;
};

}  // namespace sp
