// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "harness/trace/recorders.hpp"
#include "optimized/kernels/kernels_decorator.hpp"

namespace sp {
namespace {

class RecordingKernels final : public KernelsDecorator {
 public:
  RecordingKernels(Kernels& inner, std::unique_ptr<Kernels> owned, int rank, Timeline& timeline)
      : KernelsDecorator(inner), owned_(std::move(owned)), rank_(rank), timeline_(timeline) {}

 protected:
  void do_fill(const Tensor& target, double value) override {
    record("fill", [&] { KernelsDecorator::do_fill(target, value); });
  }
  void do_copy(const Tensor& target, const Tensor& source) override {
    record("copy", [&] { KernelsDecorator::do_copy(target, source); });
  }
  void do_add(const Tensor& target, const Tensor& source) override {
    record("add", [&] { KernelsDecorator::do_add(target, source); });
  }
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    record("attention", [&] { KernelsDecorator::do_attention(block, result); });
  }
  void do_merge(const Partial& into, const Partial& from) override {
    record("merge", [&] { KernelsDecorator::do_merge(into, from); });
  }
  void do_attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) override {
    record("attention_delta", [&] { KernelsDecorator::do_attention_delta(delta, d_out, out); });
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    record("attention_backward",
           [&] { KernelsDecorator::do_attention_backward(block, d_out, lse, delta, gradients); });
  }
  void do_scores(const Tensor& scores, const Tensor& a, const Tensor& b, double scale) override {
    record("scores", [&] { KernelsDecorator::do_scores(scores, a, b, scale); });
  }
  void do_scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                         const Tokens& k_tokens, const MaskTerms* mask) override {
    record("scores_softmax",
           [&] { KernelsDecorator::do_scores_softmax(scores, lse, q_tokens, k_tokens, mask); });
  }
  void do_scores_softmax_backward(const Tensor& d_probabilities, const Tensor& probabilities,
                                  double scale) override {
    record("scores_softmax_backward", [&] {
      KernelsDecorator::do_scores_softmax_backward(d_probabilities, probabilities, scale);
    });
  }
  void do_scores_apply(const Tensor& out, const Tensor& s, const Tensor& x) override {
    record("scores_apply", [&] { KernelsDecorator::do_scores_apply(out, s, x); });
  }
  void do_scores_apply_transposed(const Tensor& out, const Tensor& s, const Tensor& x) override {
    record("scores_apply_transposed",
           [&] { KernelsDecorator::do_scores_apply_transposed(out, s, x); });
  }
  void do_project(const Tensor& projected, const Tensor& projection, const Tensor& x) override {
    record("project", [&] { KernelsDecorator::do_project(projected, projection, x); });
  }
  void do_project_backward(const Tensor& d_x, const Tensor& d_projection, const Tensor& d_projected,
                           const Tensor& projection, const Tensor& x) override {
    record("project_backward", [&] {
      KernelsDecorator::do_project_backward(d_x, d_projection, d_projected, projection, x);
    });
  }
  void do_linear_state(const LinearBlock& block, const Tensor& state) override {
    record("linear_state", [&] { KernelsDecorator::do_linear_state(block, state); });
  }
  void do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                            const LinearTerms& terms) override {
    record("linear_accumulate",
           [&] { KernelsDecorator::do_linear_accumulate(into, spans, terms); });
  }
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override {
    record("linear_forward",
           [&] { KernelsDecorator::do_linear_forward(block, before, sums, after); });
  }
  void do_linear_inter(const LinearBlock& block, const Tensor& before,
                       const Tensor& sums) override {
    record("linear_inter", [&] { KernelsDecorator::do_linear_inter(block, before, sums); });
  }
  void do_linear_output(const Tensor& out, const Tensor& sums, double epsilon) override {
    record("linear_output", [&] { KernelsDecorator::do_linear_output(out, sums, epsilon); });
  }
  void do_linear_output_backward(const Tensor& d_sums, const Tensor& d_out, const Tensor& sums,
                                 double epsilon) override {
    record("linear_output_backward",
           [&] { KernelsDecorator::do_linear_output_backward(d_sums, d_out, sums, epsilon); });
  }
  void do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                         const Tensor& d_state) override {
    record("linear_d_state", [&] { KernelsDecorator::do_linear_d_state(block, d_sums, d_state); });
  }
  void do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                     const LinearGradients& gradients, const Tensor& after) override {
    record("linear_d_q",
           [&] { KernelsDecorator::do_linear_d_q(block, before, d_sums, gradients, after); });
  }
  void do_linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                      const LinearGradients& gradients, const Tensor& d_before) override {
    record("linear_d_kv",
           [&] { KernelsDecorator::do_linear_d_kv(block, d_after, d_sums, gradients, d_before); });
  }
  void do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                            const LinearGradients& gradients) override {
    record("linear_d_kv_inter",
           [&] { KernelsDecorator::do_linear_d_kv_inter(block, d_after, gradients); });
  }
  void do_linear_d_decay(const LinearBlock& block, const Tensor& decay_terms, const Tensor& after,
                         const Tensor& d_after, const Tensor& d_log_decay) override {
    record("linear_d_decay", [&] {
      KernelsDecorator::do_linear_d_decay(block, decay_terms, after, d_after, d_log_decay);
    });
  }
  void do_linear_apply(const LinearBlock& block, const Tensor& state, const Tensor& sums) override {
    record("linear_apply", [&] { KernelsDecorator::do_linear_apply(block, state, sums); });
  }
  void do_linear_apply_d_q(const LinearBlock& block, const Tensor& state, const Tensor& d_sums,
                           const LinearGradients& gradients) override {
    record("linear_apply_d_q",
           [&] { KernelsDecorator::do_linear_apply_d_q(block, state, d_sums, gradients); });
  }
  void do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                       const Tensor& sums) override {
    record("linear_block", [&] { KernelsDecorator::do_linear_block(block, terms, sums); });
  }
  void do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                const Tensor& d_out, const AttentionGradients& gradients,
                                const Tensor& d_log_decay) override {
    record("linear_block_backward", [&] {
      KernelsDecorator::do_linear_block_backward(block, terms, d_out, gradients, d_log_decay);
    });
  }

 private:
  // Named as the kernel is charged; its flops were counted right before.
  template <class Call>
  void record(const char* name, Call&& call) {
    Span span{
        .rank = rank_, .lane = TraceLane::kCompute, .name = name, .flops = flops() - counted_};
    counted_ += span.flops;
    span.start_s = trace_clock_s();
    call();
    span.end_s = trace_clock_s();
    timeline_.add(std::move(span));
  }

  std::unique_ptr<Kernels> owned_;
  int rank_;
  Timeline& timeline_;
  std::int64_t counted_ = 0;
};

}  // namespace

std::unique_ptr<Kernels> recorded_kernels(Kernels& inner, std::unique_ptr<Kernels> owned, int rank,
                                          Timeline& timeline) {
  return std::make_unique<RecordingKernels>(inner, std::move(owned), rank, timeline);
}

}  // namespace sp
