// Kernels: the local building blocks of every algorithm, on tensors of one rank.
//
// Order      Enqueued in program order on the rank's compute timeline; on the CPU they run at once.
// Types      q, k, v, out, d_out hold the storage type; partial results, log-sum-exp, scores and
//            gradients hold the accumulator type (f32, or f64 for f64 storage) unless said
//            otherwise. Arithmetic is in the accumulator type.
// Gradients  are added to what the tensor holds, so that they can be accumulated over blocks.
// Shapes     token-major, see tensor.hpp: n query tokens, m key tokens, B, H, G, D, E as in
//            reference/problem.
// Charging   Every call is counted (flops, bytes) and shown to an observer before it runs: the
//            simulator charges time for it, the checked mode looks for buffers in flight, the
//            timeline records it.
// Counting   flops count the pairs that the mask's band allows; segments are counted as if dense.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "optimized/sharding/tokens.hpp"
#include "optimized/sharding/visibility.hpp"
#include "optimized/tensor.hpp"

namespace sp {

// The mask as kernels see it: the band from positions, the segments from a table on every rank.
struct MaskTerms {
  Band band;
  Tensor segments;  // [B, N, 1, 1] i32, undefined: no segments
};

// One block of attention: local queries against a block of keys, whoever owned them.
struct AttentionBlock {
  Tensor q;         // [n, B, H, D]
  Tensor k;         // [m, B, G, D]
  Tensor v;         // [m, B, G, E]
  Tokens q_tokens;  // n positions
  Tokens k_tokens;  // m positions
  const MaskTerms& mask;
  double scale = 1;
};

// A normalised partial result; rows that saw no key hold 0 and -inf, the identity of merge.
struct Partial {
  Tensor out;  // [n, B, H, E], accumulator or storage type
  Tensor lse;  // [n, B, H, 1]
  Partial rows(std::int64_t begin, std::int64_t end) const {
    return {out.rows(begin, end), lse.rows(begin, end)};
  }
};

struct AttentionGradients {
  Tensor d_q;  // [n, B, H, D]
  Tensor d_k;  // [m, B, G, D]
  Tensor d_v;  // [m, B, G, E]
};

struct Charge {
  const char* kernel = "";
  std::int64_t flops = 0;
  std::int64_t bytes = 0;  // read and written once each
};

class KernelObserver {
 public:
  virtual ~KernelObserver() = default;
  virtual void before(const Charge& charge, std::span<const Tensor> reads,
                      std::span<const Tensor> writes) = 0;
};

class Kernels {
 public:
  virtual ~Kernels() = default;

  void fill(const Tensor& target, double value);
  void copy(const Tensor& target, const Tensor& source);  // same shape; casts, any strides
  void add(const Tensor& target, const Tensor& source);   // target += source, accumulator type

  // result = attention of block.q over block.k, block.v alone. Overwrites result.
  void attention(const AttentionBlock& block, const Partial& result);
  // into = the attention over the keys of both; rows as in `into`.
  void merge(const Partial& into, const Partial& from);
  // delta[i] = sum over e of d_out[i, e] out[i, e]: [n, B, H, 1]
  void attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out);
  // Needs the log-sum-exp and delta of the rows over ALL keys, not over this block.
  void attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                          const Tensor& delta, const AttentionGradients& gradients);

  // Score rows [n, B, H, m] of Ring Self-Attention hold the accumulator type; key head g of query
  // head h is h / (H/G).
  // scores[i,b,h,j] = scale <a[i,b,h,:], b[j,b,g,:]>; b is of storage or accumulator type.
  void scores(const Tensor& scores, const Tensor& a, const Tensor& b, double scale);
  // In place: masked softmax of complete rows, and their log-sum-exp. A null mask hides nothing.
  void scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                      const Tokens& k_tokens, const MaskTerms* mask);
  // In place: d_probabilities becomes scale p (dp - sum p dp). Where p = 0 it need not be defined.
  void scores_softmax_backward(const Tensor& d_probabilities, const Tensor& probabilities,
                               double scale);
  // out[i,b,h,:] += sum over j of s[i,b,h,j] x[j,b,g,:]
  void scores_apply(const Tensor& out, const Tensor& s, const Tensor& x);
  // out[j,b,g,:] += sum over i and the query heads h of g of s[i,b,h,j] x[i,b,h,:]
  void scores_apply_transposed(const Tensor& out, const Tensor& s, const Tensor& x);

  // Length projection of Linformer: projection [m, 1, 1, K'], projected [K', B, G, D] of
  // accumulator type. projected += projectionT x.
  void project(const Tensor& projected, const Tensor& projection, const Tensor& x);
  void project_backward(const Tensor& d_x, const Tensor& d_projection, const Tensor& d_projected,
                        const Tensor& projection, const Tensor& x);  // both +=

  void observe(KernelObserver* observer) { observer_ = observer; }  // null: nobody
  std::int64_t flops() const { return flops_; }                     // charged so far

 protected:
  virtual void do_fill(const Tensor& target, double value) = 0;
  virtual void do_copy(const Tensor& target, const Tensor& source) = 0;
  virtual void do_add(const Tensor& target, const Tensor& source) = 0;
  virtual void do_attention(const AttentionBlock& block, const Partial& result) = 0;
  virtual void do_merge(const Partial& into, const Partial& from) = 0;
  virtual void do_attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) = 0;
  virtual void do_attention_backward(const AttentionBlock& block, const Tensor& d_out,
                                     const Tensor& lse, const Tensor& delta,
                                     const AttentionGradients& gradients) = 0;
  virtual void do_scores(const Tensor& scores, const Tensor& a, const Tensor& b, double scale) = 0;
  virtual void do_scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                                 const Tokens& k_tokens, const MaskTerms* mask) = 0;
  virtual void do_scores_softmax_backward(const Tensor& d_probabilities,
                                          const Tensor& probabilities, double scale) = 0;
  virtual void do_scores_apply(const Tensor& out, const Tensor& s, const Tensor& x) = 0;
  virtual void do_scores_apply_transposed(const Tensor& out, const Tensor& s, const Tensor& x) = 0;
  virtual void do_project(const Tensor& projected, const Tensor& projection, const Tensor& x) = 0;
  virtual void do_project_backward(const Tensor& d_x, const Tensor& d_projection,
                                   const Tensor& d_projected, const Tensor& projection,
                                   const Tensor& x) = 0;

  friend class KernelsDecorator;  // forwards every do_ to the one it wraps

 private:
  void charge(const char* kernel, std::int64_t flops, std::initializer_list<Tensor> reads,
              std::initializer_list<Tensor> writes);

  KernelObserver* observer_ = nullptr;
  std::int64_t flops_ = 0;
};

// Flops of one attention block per visible pair and head: q kT and p v are 2D + 2E; backward
// recomputes the scores and forms dp, dv, dq, dk: 6D + 4E. Exponentials and row sums are not
// counted (FlashAttention's convention).
std::int64_t attention_flops(std::int64_t pairs, std::int64_t B, std::int64_t H, std::int64_t D,
                             std::int64_t E);
std::int64_t attention_backward_flops(std::int64_t pairs, std::int64_t B, std::int64_t H,
                                      std::int64_t D, std::int64_t E);

}  // namespace sp
