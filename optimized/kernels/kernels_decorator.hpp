// Kernels that forward every call to other kernels; what changes a call overrides it.
//
// Calls are charged and observed here, once: the inner kernels count nothing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

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

 private:
  Kernels& inner_;
};

}  // namespace sp
