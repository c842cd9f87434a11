// The kernels on the CPU: one thread, SIMD tiles, results that depend on the operands alone.
//
// Blocked everywhere: attention holds tiles of kTileRows x kTileRows scores, never all of them.
// Rows of every operand must be neighbours along the last axis; all other strides are free, and
// fill, copy and add take any. One object serves one rank: it owns the scratch.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cpu/scratch.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp {

class CpuKernels final : public Kernels {
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

 private:
  Scratch scratch_;
};

}  // namespace sp
