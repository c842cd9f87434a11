// Kernels that forward every call to other kernels; what changes a call overrides it.
//
// Calls are charged and observed here, once: the inner kernels count nothing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "optimized/kernels/kernels.hpp"

namespace sp {

class KernelsDecorator : public Kernels {
 public:
  explicit KernelsDecorator(Kernels& inner) : inner_(inner) {}

 protected:
  void do_fill(const Tensor& target, double value) override { inner_.do_fill(target, value); }
  void do_copy(const Tensor& target, const Tensor& source) override {
    inner_.do_copy(target, source);
  }
  void do_add(const Tensor& target, const Tensor& source) override {
    inner_.do_add(target, source);
  }
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    inner_.do_attention(block, result);
  }
  void do_merge(const Partial& into, const Partial& from) override { inner_.do_merge(into, from); }
  void do_attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) override {
    inner_.do_attention_delta(delta, d_out, out);
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    inner_.do_attention_backward(block, d_out, lse, delta, gradients);
  }
  void do_scores(const Tensor& scores, const Tensor& a, const Tensor& b, double scale) override {
    inner_.do_scores(scores, a, b, scale);
  }
  void do_scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                         const Tokens& k_tokens, const MaskTerms* mask) override {
    inner_.do_scores_softmax(scores, lse, q_tokens, k_tokens, mask);
  }
  void do_scores_softmax_backward(const Tensor& d_probabilities, const Tensor& probabilities,
                                  double scale) override {
    inner_.do_scores_softmax_backward(d_probabilities, probabilities, scale);
  }
  void do_scores_apply(const Tensor& out, const Tensor& s, const Tensor& x) override {
    inner_.do_scores_apply(out, s, x);
  }
  void do_scores_apply_transposed(const Tensor& out, const Tensor& s, const Tensor& x) override {
    inner_.do_scores_apply_transposed(out, s, x);
  }
  void do_project(const Tensor& projected, const Tensor& projection, const Tensor& x) override {
    inner_.do_project(projected, projection, x);
  }
  void do_project_backward(const Tensor& d_x, const Tensor& d_projection, const Tensor& d_projected,
                           const Tensor& projection, const Tensor& x) override {
    inner_.do_project_backward(d_x, d_projection, d_projected, projection, x);
  }
  void do_linear_state(const LinearBlock& block, const Tensor& state) override {
    inner_.do_linear_state(block, state);
  }
  void do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                            const LinearTerms& terms) override {
    inner_.do_linear_accumulate(into, spans, terms);
  }
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override {
    inner_.do_linear_forward(block, before, sums, after);
  }
  void do_linear_inter(const LinearBlock& block, const Tensor& before,
                       const Tensor& sums) override {
    inner_.do_linear_inter(block, before, sums);
  }
  void do_linear_output(const Tensor& out, const Tensor& sums, double epsilon) override {
    inner_.do_linear_output(out, sums, epsilon);
  }
  void do_linear_output_backward(const Tensor& d_sums, const Tensor& d_out, const Tensor& sums,
                                 double epsilon) override {
    inner_.do_linear_output_backward(d_sums, d_out, sums, epsilon);
  }
  void do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                         const Tensor& d_state) override {
    inner_.do_linear_d_state(block, d_sums, d_state);
  }
  void do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                     const LinearGradients& gradients, const Tensor& after) override {
    inner_.do_linear_d_q(block, before, d_sums, gradients, after);
  }
  void do_linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                      const LinearGradients& gradients, const Tensor& d_before) override {
    inner_.do_linear_d_kv(block, d_after, d_sums, gradients, d_before);
  }
  void do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                            const LinearGradients& gradients) override {
    inner_.do_linear_d_kv_inter(block, d_after, gradients);
  }
  void do_linear_d_decay(const LinearBlock& block, const Tensor& decay_terms, const Tensor& after,
                         const Tensor& d_after, const Tensor& d_log_decay) override {
    inner_.do_linear_d_decay(block, decay_terms, after, d_after, d_log_decay);
  }
  void do_linear_apply(const LinearBlock& block, const Tensor& state, const Tensor& sums) override {
    inner_.do_linear_apply(block, state, sums);
  }
  void do_linear_apply_d_q(const LinearBlock& block, const Tensor& state, const Tensor& d_sums,
                           const LinearGradients& gradients) override {
    inner_.do_linear_apply_d_q(block, state, d_sums, gradients);
  }
  void do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                       const Tensor& sums) override {
    inner_.do_linear_block(block, terms, sums);
  }
  void do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                const Tensor& d_out, const AttentionGradients& gradients,
                                const Tensor& d_log_decay) override {
    inner_.do_linear_block_backward(block, terms, d_out, gradients, d_log_decay);
  }

 private:
  Kernels& inner_;
};

}  // namespace sp
