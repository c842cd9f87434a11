// Kernels that keep books: where real ones add products, these add the weights of the pairs that
// the operands name. Everything else, copies, messages, sums over ranks, is done by the real ones.
//
// Every operand must be where the call says it is (positions, heads, batch), every quantity that a
// kernel needs complete (log-sum-exp, delta, projected rows) must be complete: else Error(kInternal),
// at once. Tensors hold f64.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/ledger/books.hpp"
#include "optimized/kernels/kernels_decorator.hpp"

namespace sp::ledger {

class LedgerKernels final : public KernelsDecorator {
 public:
  // `inner` fills, copies and adds; both must outlive this.
  LedgerKernels(Kernels& inner, const Books& books) : KernelsDecorator(inner), books_(books) {}

 protected:
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
  const Books& books_;
};

}  // namespace sp::ledger
