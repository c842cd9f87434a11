// The kernels on a GPU: enqueued on the compute stream of the rank's GPU, never waited for.
//
// Storage    f32, bf16, f16. Products of 16-bit operands run on tensor cores where that pays
//            (attention, head sizes up to 128); everything else in f32.
// Order      Results depend on the operands alone: no atomic sums, one fixed order of additions.
// Strides    The last axis of every operand of a product is contiguous; all other strides are free.
//            16-byte accesses are used where addresses and strides allow them.
// Workspace  Token tables and scratch live outside the rank's Memory and are not in its ledger.
// Each do_ function is defined beside its kernel.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "optimized/kernels/cuda/views.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp::SP_GPU {

class CudaKernels final : public Kernels {
 public:
  explicit CudaKernels(const Gpu& gpu) : gpu_(gpu), tables_(gpu) {}

 protected:
  void do_fill(const Tensor& target, double value) override;
  void do_copy(const Tensor& target, const Tensor& source) override;
  void do_add(const Tensor& target, const Tensor& source) override;
  void do_attention(const AttentionBlock& block, const Partial& result) override;
  void do_merge(const Partial& into, const Partial& from) override;
  void do_attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) override;
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override;
  void do_scores(const Tensor& scores, const Tensor& a, const Tensor& b, double scale) override;
  void do_scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                         const Tokens& k_tokens, const MaskTerms* mask) override;
  void do_scores_softmax_backward(const Tensor& d_probabilities, const Tensor& probabilities,
                                  double scale) override;
  void do_scores_apply(const Tensor& out, const Tensor& s, const Tensor& x) override;
  void do_scores_apply_transposed(const Tensor& out, const Tensor& s, const Tensor& x) override;
  void do_project(const Tensor& projected, const Tensor& projection, const Tensor& x) override;
  void do_project_backward(const Tensor& d_x, const Tensor& d_projection, const Tensor& d_projected,
                           const Tensor& projection, const Tensor& x) override;

  void do_linear_state(const LinearBlock& block, const Tensor& state) override;
  void do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                            const LinearTerms& terms) override;
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override;
  void do_linear_inter(const LinearBlock& block, const Tensor& before, const Tensor& sums) override;
  void do_linear_output(const Tensor& out, const Tensor& sums, double epsilon) override;
  void do_linear_output_backward(const Tensor& d_sums, const Tensor& d_out, const Tensor& sums,
                                 double epsilon) override;
  void do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                         const Tensor& d_state) override;
  void do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                     const LinearGradients& gradients, const Tensor& after) override;
  void do_linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                      const LinearGradients& gradients, const Tensor& d_before) override;
  void do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                            const LinearGradients& gradients) override;
  void do_linear_d_decay(const LinearBlock& block, const Tensor& decay_terms, const Tensor& after,
                         const Tensor& d_after, const Tensor& d_log_decay) override;
  void do_linear_apply(const LinearBlock& block, const Tensor& state, const Tensor& sums) override;
  void do_linear_apply_d_q(const LinearBlock& block, const Tensor& state, const Tensor& d_sums,
                           const LinearGradients& gradients) override;
  void do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                       const Tensor& sums) override;
  void do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                const Tensor& d_out, const AttentionGradients& gradients,
                                const Tensor& d_log_decay) override;

 private:
  const Gpu& gpu_;
  TokenTables tables_;
};

}  // namespace sp::SP_GPU
