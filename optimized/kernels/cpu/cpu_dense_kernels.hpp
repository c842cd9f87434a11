// The dense family on the CPU: one thread, products in packed tiles, everything else row by row.
// One object serves one rank: it owns the scratch.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cpu/scratch.hpp"
#include "optimized/kernels/dense.hpp"

namespace sp {

class CpuDenseKernels final : public DenseKernels {
 protected:
  void do_product(const Tensor& y, const Tensor& x, const Tensor& weight,
                  const Tensor& bias) override;
  void do_product_d_x(const Tensor& d_x, const Tensor& d_y, const Tensor& weight) override;
  void do_product_d_weight(const Tensor& d_weight, const Tensor& d_bias, const Tensor& d_y,
                           const Tensor& x) override;
  void do_norm(const Tensor& y, const Tensor& x, const Tensor& gain, const Tensor& bias,
               const NormRows& rows, double epsilon) override;
  void do_norm_backward(const Tensor& d_x, const Tensor& d_gain, const Tensor& d_bias,
                        const Tensor& d_y, const Tensor& x, const Tensor& gain,
                        const NormRows& rows) override;
  void do_rotate(const Tensor& y, const Tensor& x, const Tokens& tokens, double base,
                 int sign) override;
  void do_activate(const Tensor& y, const Tensor& x, Activation f, double factor) override;
  void do_activate_backward(const Tensor& d_x, const Tensor& d_y, const Tensor& x, Activation f,
                            double factor) override;
  void do_gate(const Tensor& y, const Tensor& gates, const Tensor& x) override;
  void do_gate_backward(const Tensor& d_gates, const Tensor& d_x, const Tensor& d_y,
                        const Tensor& gates, const Tensor& x) override;
  void do_embed(const Tensor& y, const Tensor& table, const Tensor& ids,
                std::int64_t first) override;
  void do_embed_backward(const Tensor& d_table, const Tensor& d_y, const Tensor& ids,
                         std::int64_t first) override;
  void do_vocabulary_rows(const Tensor& lse, const Tensor& picked, const Tensor& logits,
                          const Tensor& targets, std::int64_t first) override;
  void do_cross_entropy(const Tensor& loss, const Tensor& lse, const Tensor& picked,
                        const Tensor& weights) override;
  void do_cross_entropy_backward(const Tensor& d_logits, const Tensor& logits, const Tensor& lse,
                                 const Tensor& targets, const Tensor& weights,
                                 std::int64_t first) override;
  void do_add_squares(const Tensor& sum, const Tensor& x) override;
  void do_adamw(const Tensor& parameter, const Tensor& first, const Tensor& second,
                const Tensor& gradient, const AdamStep& step) override;

 private:
  Scratch scratch_;
};

}  // namespace sp
