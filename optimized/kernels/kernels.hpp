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

#include "optimized/kernels/account.hpp"
#include "optimized/kernels/linear.hpp"
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

class Kernels : public KernelAccount {
 public:
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

  // Linear attention on one chunk (linear.hpp). `sums` and `d_sums` [n, B, H, W] are the output and
  // its gradient before the normaliser; without one d_sums is d_out itself, of any float type.
  // States may be undefined where a parameter says so: then they are 0, or not wanted.

  // state = the chunk's own state at its end: of its last document only. Overwrites.
  // With per-channel decay, state may have one more column: the sum of log_decay over the chunk.
  void linear_state(const LinearBlock& block, const Tensor& state);
  // For each span in order: into = decay(span) into + span.state, where the decay is that of all
  // tokens of the span, and 0 if a document begins in it. `into` [F, B, SH, W] of any span width:
  // columns beyond those of `into` are ignored.
  void linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                         const LinearTerms& terms);
  // sums = the chunk's output from the state `before` it, and `after` = the state at its end.
  void linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                      const Tensor& after);  // before, after: may be undefined
  // sums += scale phi(q) decay `before`, for the tokens of the document that began before the chunk.
  void linear_inter(const LinearBlock& block, const Tensor& before, const Tensor& sums);
  // out = sums, or numerator / (denominator + epsilon); rounds to the type of out.
  void linear_output(const Tensor& out, const Tensor& sums, double epsilon);
  // d_sums [n, B, H, W] from d_out and the sums of forward.
  void linear_output_backward(const Tensor& d_sums, const Tensor& d_out, const Tensor& sums,
                              double epsilon);

  // d_state = gradient of the state before the chunk, from the chunk alone. Overwrites.
  void linear_d_state(const LinearBlock& block, const Tensor& d_sums, const Tensor& d_state);
  // d_q of the chunk from the state `before` it; `after` as in linear_forward. Both may be undefined.
  void linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                  const LinearGradients& gradients, const Tensor& after);
  // d_k, d_v of the chunk from the gradient d_after of the state at its end; d_before = gradient of
  // the state before the chunk. Both may be undefined.
  void linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                   const LinearGradients& gradients, const Tensor& d_before);
  // The share of d_after in d_k and d_v: what linear_d_kv without it leaves out.
  void linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                         const LinearGradients& gradients);
  // d_log_decay from complete decay_terms and the state and its gradient at the chunk's end:
  // [n, B, H, D], or [1, 1, H, 1] as this chunk's share of the sum over the sequence. Overwrites;
  // d_log_decay may be decay_terms itself. d_after may be undefined.
  void linear_d_decay(const LinearBlock& block, const Tensor& decay_terms, const Tensor& after,
                      const Tensor& d_after, const Tensor& d_log_decay);

  // Without a mask all tokens share one state, and there is no decay: sums += scale phi(q) state.
  void linear_apply(const LinearBlock& block, const Tensor& state, const Tensor& sums);
  void linear_apply_d_q(const LinearBlock& block, const Tensor& state, const Tensor& d_sums,
                        const LinearGradients& gradients);

  // The left product: sums += ((scale q kT) * decay * mask) v for a block of keys, whoever owned
  // them; the decay is exp(log_decay |i - j|). Basic, Lightning, Retention; segments reset. The
  // gradient of the decay, [1, 1, H, 1], is added too; undefined without a decay.
  void linear_block(const AttentionBlock& block, const LinearTerms& terms, const Tensor& sums);
  void linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                             const Tensor& d_out, const AttentionGradients& gradients,
                             const Tensor& d_log_decay);

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

  virtual void do_linear_state(const LinearBlock& block, const Tensor& state) = 0;
  virtual void do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                                    const LinearTerms& terms) = 0;
  virtual void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                                 const Tensor& after) = 0;
  virtual void do_linear_inter(const LinearBlock& block, const Tensor& before,
                               const Tensor& sums) = 0;
  virtual void do_linear_output(const Tensor& out, const Tensor& sums, double epsilon) = 0;
  virtual void do_linear_output_backward(const Tensor& d_sums, const Tensor& d_out,
                                         const Tensor& sums, double epsilon) = 0;
  virtual void do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                                 const Tensor& d_state) = 0;
  virtual void do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                             const LinearGradients& gradients, const Tensor& after) = 0;
  virtual void do_linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                              const LinearGradients& gradients, const Tensor& d_before) = 0;
  virtual void do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                                    const LinearGradients& gradients) = 0;
  virtual void do_linear_d_decay(const LinearBlock& block, const Tensor& decay_terms,
                                 const Tensor& after, const Tensor& d_after,
                                 const Tensor& d_log_decay) = 0;
  virtual void do_linear_apply(const LinearBlock& block, const Tensor& state,
                               const Tensor& sums) = 0;
  virtual void do_linear_apply_d_q(const LinearBlock& block, const Tensor& state,
                                   const Tensor& d_sums, const LinearGradients& gradients) = 0;
  virtual void do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                               const Tensor& sums) = 0;
  virtual void do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                        const Tensor& d_out, const AttentionGradients& gradients,
                                        const Tensor& d_log_decay) = 0;

  friend class KernelsDecorator;  // forwards every do_ to the one it wraps
};

// Flops of one attention block per visible pair and head: q kT and p v are 2D + 2E; backward
// recomputes the scores and forms dp, dv, dq, dk: 6D + 4E. Exponentials and row sums are not
// counted (FlashAttention's convention).
std::int64_t attention_flops(std::int64_t pairs, std::int64_t B, std::int64_t H, std::int64_t D,
                             std::int64_t E);
std::int64_t attention_backward_flops(std::int64_t pairs, std::int64_t B, std::int64_t H,
                                      std::int64_t D, std::int64_t E);

}  // namespace sp
