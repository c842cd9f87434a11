// Every kernel, watched: the real call, the same in double, and what a rounding of its operands would change.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "harness/witness/plain_kernels.hpp"
#include "harness/witness/twins.hpp"
#include "harness/witness/witness.hpp"

namespace sp {
namespace {

constexpr int kStrays = 3;         // runs with operands that are off
constexpr double kRoundings = 64;  // of what those stray by, and of w |x|

struct Written {
  const char* name;
  Tensor tensor;
};
using Values = std::vector<double>;

double norm(const double* x, std::int64_t n) {
  double squares = 0;
  for (std::int64_t i = 0; i < n; ++i) squares += x[i] * x[i];
  return std::sqrt(squares);
}

bool finite(const double* x, std::int64_t n) {
  return std::all_of(x, x + n, [](double value) { return std::isfinite(value); });
}

class WitnessedKernels final : public Kernels {
 public:
  WitnessedKernels(Kernels& inner, std::unique_ptr<Kernels> owned,
                   std::shared_ptr<WitnessedRank> me)
      : inner_(inner), owned_(std::move(owned)), me_(std::move(me)) {}

 protected:
  void do_fill(const Tensor& target, double value) override {
    watch("fill", {{"target", target}}, [&](Kernels& k, auto&& at) { k.fill(at(target), value); });
  }
  void do_copy(const Tensor& target, const Tensor& source) override {
    watch("copy", {{"target", target}},
          [&](Kernels& k, auto&& at) { k.copy(at(target), at(source)); });
  }
  void do_add(const Tensor& target, const Tensor& source) override {
    watch("add", {{"target", target}},
          [&](Kernels& k, auto&& at) { k.add(at(target), at(source)); });
  }
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    complain(misplaced_operand(me_->witness, block), "attention");
    watch(
        "attention", {{"out", result.out}, {"lse", result.lse}},
        [&](Kernels& k, auto&& at) {
          with(block, at,
               [&](const AttentionBlock& b) { k.attention(b, {at(result.out), at(result.lse)}); });
        },
        true);
  }
  void do_merge(const Partial& into, const Partial& from) override {
    watch("merge", {{"out", into.out}, {"lse", into.lse}}, [&](Kernels& k, auto&& at) {
      k.merge({at(into.out), at(into.lse)}, {at(from.out), at(from.lse)});
    });
  }
  void do_attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) override {
    watch("attention_delta", {{"delta", delta}},
          [&](Kernels& k, auto&& at) { k.attention_delta(at(delta), at(d_out), at(out)); });
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    complain(misplaced_operand(me_->witness, block), "attention_backward");
    complain(incomplete_rows(me_->witness, block, d_out, lse, delta), "attention_backward");
    watch(
        "attention_backward",
        {{"d_q", gradients.d_q}, {"d_k", gradients.d_k}, {"d_v", gradients.d_v}},
        [&](Kernels& k, auto&& at) {
          with(block, at, [&](const AttentionBlock& b) {
            k.attention_backward(b, at(d_out), at(lse), at(delta), all(gradients, at));
          });
        },
        true);
  }
  void do_scores(const Tensor& scores, const Tensor& a, const Tensor& b, double scale) override {
    watch("scores", {{"scores", scores}},
          [&](Kernels& k, auto&& at) { k.scores(at(scores), at(a), at(b), scale); });
  }
  void do_scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                         const Tokens& k_tokens, const MaskTerms* mask) override {
    watch("scores_softmax", {{"probabilities", scores}, {"lse", lse}}, [&](Kernels& k, auto&& at) {
      MaskTerms terms;
      if (mask != nullptr) terms = {mask->band, at(mask->segments)};
      k.scores_softmax(at(scores), at(lse), q_tokens, k_tokens, mask != nullptr ? &terms : nullptr);
    });
  }
  void do_scores_softmax_backward(const Tensor& d_probabilities, const Tensor& probabilities,
                                  double scale) override {
    watch("scores_softmax_backward", {{"d_scores", d_probabilities}}, [&](Kernels& k, auto&& at) {
      k.scores_softmax_backward(at(d_probabilities), at(probabilities), scale);
    });
  }
  void do_scores_apply(const Tensor& out, const Tensor& s, const Tensor& x) override {
    watch("scores_apply", {{"out", out}},
          [&](Kernels& k, auto&& at) { k.scores_apply(at(out), at(s), at(x)); });
  }
  void do_scores_apply_transposed(const Tensor& out, const Tensor& s, const Tensor& x) override {
    watch("scores_apply_transposed", {{"out", out}},
          [&](Kernels& k, auto&& at) { k.scores_apply_transposed(at(out), at(s), at(x)); });
  }
  void do_project(const Tensor& projected, const Tensor& projection, const Tensor& x) override {
    watch("project", {{"projected", projected}},
          [&](Kernels& k, auto&& at) { k.project(at(projected), at(projection), at(x)); });
  }
  void do_project_backward(const Tensor& d_x, const Tensor& d_projection, const Tensor& d_projected,
                           const Tensor& projection, const Tensor& x) override {
    watch("project_backward", {{"d_x", d_x}, {"d_projection", d_projection}},
          [&](Kernels& k, auto&& at) {
            k.project_backward(at(d_x), at(d_projection), at(d_projected), at(projection), at(x));
          });
  }

  void do_linear_state(const LinearBlock& block, const Tensor& state) override {
    complain(misplaced_operand(me_->witness, block, "kv"), "linear_state");
    watch("linear_state", {{"state", state}}, [&](Kernels& k, auto&& at) {
      with(block, at, [&](const LinearBlock& b) { k.linear_state(b, at(state)); });
    });
  }
  void do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                            const LinearTerms& terms) override {
    watch("linear_accumulate", {{"state", into}}, [&](Kernels& k, auto&& at) {
      std::vector<StateSpan> twins;
      for (const StateSpan& span : spans)
        twins.push_back({at(span.state), span.tokens, at(span.log_decay)});
      with(terms, at, [&](const LinearTerms& t) { k.linear_accumulate(at(into), twins, t); });
    });
  }
  void do_linear_forward(const LinearBlock& block, const Tensor& before, const Tensor& sums,
                         const Tensor& after) override {
    complain(misplaced_operand(me_->witness, block, "qkv"), "linear_forward");
    watch("linear_forward", {{"sums", sums}, {"after", after}}, [&](Kernels& k, auto&& at) {
      with(block, at,
           [&](const LinearBlock& b) { k.linear_forward(b, at(before), at(sums), at(after)); });
    });
  }
  void do_linear_inter(const LinearBlock& block, const Tensor& before,
                       const Tensor& sums) override {
    complain(misplaced_operand(me_->witness, block, "q"), "linear_inter");
    watch("linear_inter", {{"sums", sums}}, [&](Kernels& k, auto&& at) {
      with(block, at, [&](const LinearBlock& b) { k.linear_inter(b, at(before), at(sums)); });
    });
  }
  void do_linear_output(const Tensor& out, const Tensor& sums, double epsilon) override {
    watch("linear_output", {{"out", out}},
          [&](Kernels& k, auto&& at) { k.linear_output(at(out), at(sums), epsilon); });
  }
  void do_linear_output_backward(const Tensor& d_sums, const Tensor& d_out, const Tensor& sums,
                                 double epsilon) override {
    watch("linear_output_backward", {{"d_sums", d_sums}}, [&](Kernels& k, auto&& at) {
      k.linear_output_backward(at(d_sums), at(d_out), at(sums), epsilon);
    });
  }
  void do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                         const Tensor& d_state) override {
    complain(misplaced_operand(me_->witness, block, "q"), "linear_d_state");
    watch("linear_d_state", {{"d_state", d_state}}, [&](Kernels& k, auto&& at) {
      with(block, at, [&](const LinearBlock& b) { k.linear_d_state(b, at(d_sums), at(d_state)); });
    });
  }
  void do_linear_d_q(const LinearBlock& block, const Tensor& before, const Tensor& d_sums,
                     const LinearGradients& gradients, const Tensor& after) override {
    complain(misplaced_operand(me_->witness, block, "kv"), "linear_d_q");
    watch("linear_d_q", written(gradients, {"after", after}), [&](Kernels& k, auto&& at) {
      with(block, at, [&](const LinearBlock& b) {
        k.linear_d_q(b, at(before), at(d_sums), all(gradients, at), at(after));
      });
    });
  }
  void do_linear_d_kv(const LinearBlock& block, const Tensor& d_after, const Tensor& d_sums,
                      const LinearGradients& gradients, const Tensor& d_before) override {
    complain(misplaced_operand(me_->witness, block, "qkv"), "linear_d_kv");
    watch("linear_d_kv", written(gradients, {"d_before", d_before}), [&](Kernels& k, auto&& at) {
      with(block, at, [&](const LinearBlock& b) {
        k.linear_d_kv(b, at(d_after), at(d_sums), all(gradients, at), at(d_before));
      });
    });
  }
  void do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                            const LinearGradients& gradients) override {
    complain(misplaced_operand(me_->witness, block, "kv"), "linear_d_kv_inter");
    watch("linear_d_kv_inter", written(gradients, {}), [&](Kernels& k, auto&& at) {
      with(block, at,
           [&](const LinearBlock& b) { k.linear_d_kv_inter(b, at(d_after), all(gradients, at)); });
    });
  }
  void do_linear_d_decay(const LinearBlock& block, const Tensor& decay_terms, const Tensor& after,
                         const Tensor& d_after, const Tensor& d_log_decay) override {
    watch("linear_d_decay", {{"d_log_decay", d_log_decay}}, [&](Kernels& k, auto&& at) {
      with(block, at, [&](const LinearBlock& b) {
        k.linear_d_decay(b, at(decay_terms), at(after), at(d_after), at(d_log_decay));
      });
    });
  }
  void do_linear_apply(const LinearBlock& block, const Tensor& state, const Tensor& sums) override {
    complain(misplaced_operand(me_->witness, block, "q"), "linear_apply");
    watch("linear_apply", {{"sums", sums}}, [&](Kernels& k, auto&& at) {
      with(block, at, [&](const LinearBlock& b) { k.linear_apply(b, at(state), at(sums)); });
    });
  }
  void do_linear_apply_d_q(const LinearBlock& block, const Tensor& state, const Tensor& d_sums,
                           const LinearGradients& gradients) override {
    complain(misplaced_operand(me_->witness, block, "q"), "linear_apply_d_q");
    watch("linear_apply_d_q", written(gradients, {}), [&](Kernels& k, auto&& at) {
      with(block, at, [&](const LinearBlock& b) {
        k.linear_apply_d_q(b, at(state), at(d_sums), all(gradients, at));
      });
    });
  }
  void do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                       const Tensor& sums) override {
    complain(misplaced_operand(me_->witness, block), "linear_block");
    watch("linear_block", {{"sums", sums}}, [&](Kernels& k, auto&& at) {
      with(block, at, [&](const AttentionBlock& b) {
        with(terms, at, [&](const LinearTerms& t) { k.linear_block(b, t, at(sums)); });
      });
    });
  }
  void do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                const Tensor& d_out, const AttentionGradients& gradients,
                                const Tensor& d_log_decay) override {
    complain(misplaced_operand(me_->witness, block), "linear_block_backward");
    watch("linear_block_backward",
          {{"d_q", gradients.d_q},
           {"d_k", gradients.d_k},
           {"d_v", gradients.d_v},
           {"d_log_decay", d_log_decay}},
          [&](Kernels& k, auto&& at) {
            with(block, at, [&](const AttentionBlock& b) {
              with(terms, at, [&](const LinearTerms& t) {
                k.linear_block_backward(b, t, at(d_out), all(gradients, at), at(d_log_decay));
              });
            });
          });
  }

 private:
  // The operands themselves, or their twins.
  struct Themselves {
    Tensor operator()(const Tensor& tensor) const { return tensor; }
  };
  template <class Block, class F>
  static void with(const Block& block, Themselves&, F&& f) {
    f(block);
  }
  template <class F>
  static void with(const AttentionBlock& block, Twins& twins, F&& f) {
    f(AttentionTwin(block, twins).block);
  }
  template <class F>
  static void with(const LinearBlock& block, Twins& twins, F&& f) {
    f(LinearTwin(block, twins).block);
  }
  template <class F>
  static void with(const LinearTerms& terms, Twins& twins, F&& f) {
    f(twin_of(terms, twins));
  }
  template <class At>
  static AttentionGradients all(const AttentionGradients& gradients, At& at) {
    return {at(gradients.d_q), at(gradients.d_k), at(gradients.d_v)};
  }
  template <class At>
  static LinearGradients all(const LinearGradients& g, At& at) {
    return {at(g.d_q), at(g.d_k), at(g.d_v), at(g.decay_terms), at(g.d_gamma), at(g.d_beta)};
  }
  static std::vector<Written> written(const LinearGradients& g, const Written& more) {
    return {{"d_q", g.d_q},
            {"d_k", g.d_k},
            {"d_v", g.d_v},
            {"decay_terms", g.decay_terms},
            {"d_gamma", g.d_gamma},
            {"d_beta", g.d_beta},
            more};
  }

  void complain(const std::string& what, const char* kernel) {
    if (!what.empty())
      me_->witness.found(me_->rank, fmt::format("{} is given {}{}", kernel, what, me_->where()));
  }

  template <class Call>
  void watch(const char* kernel, const std::vector<Written>& results, Call&& call,
             bool rounds_operands = false) {
    // Before the real call changes what twins are made of.
    CpuMemory memory;
    std::array<std::vector<Values>, 1 + kStrays> yardsticks;
    for (std::size_t run = 0; run < yardsticks.size(); ++run) {
      Twins twins(memory, run == 0 ? 0 : me_->witness.unit(rounds_operands), run);
      call(plain_, twins);
      for (const Written& result : results) yardsticks[run].push_back(twins.values(result.tensor));
    }
    Themselves themselves;
    call(inner_, themselves);
    for (std::size_t i = 0; i < results.size(); ++i) {
      const Tensor& tensor = results[i].tensor;
      if (!tensor.defined() || tensor.elements() == 0) continue;
      std::array<const Values*, 1 + kStrays> runs{};
      for (std::size_t run = 0; run < runs.size(); ++run) runs[run] = &yardsticks[run][i];
      if (compare(kernel, results[i], runs)) break;
    }
  }

  // Whether it is wrong.
  bool compare(const char* kernel, const Written& result,
               const std::array<const Values*, 1 + kStrays>& runs) {
    const Values values = values_of(result.tensor);
    const std::int64_t n = result.tensor.extent(3);
    const DType dtype = result.tensor.dtype();
    const double w = unit_roundoff(accumulator_of(me_->witness.problem().dtype));
    const double u = unit_roundoff(dtype), tiny = dtype == DType::kF16 ? 0x1p-24 : 0x1p-120;
    for (std::int64_t begin = 0; begin < std::ssize(values); begin += n) {
      const double *x = values.data() + begin, *exact = runs[0]->data() + begin;
      if (!finite(exact, n)) {
        if (std::equal(x, x + n, exact)) continue;  // -inf of rows that see nothing
        me_->witness.symptom(
            me_->rank, fmt::format("{} works on what is not finite: {} {}{}", kernel, result.name,
                                   place(result.tensor, begin), me_->where()));
        return true;
      }
      Values error(x, x + n);
      double strays = 0, size = norm(exact, n);
      for (std::int64_t e = 0; e < n; ++e) error[static_cast<std::size_t>(e)] -= exact[e];
      for (int run = 1; run <= kStrays; ++run) {
        Values moved(runs[static_cast<std::size_t>(run)]->data() + begin,
                     runs[static_cast<std::size_t>(run)]->data() + begin + n);
        for (std::int64_t e = 0; e < n; ++e) moved[static_cast<std::size_t>(e)] -= exact[e];
        strays = std::max(strays, norm(moved.data(), n));
      }
      const double limit =
          u * size + kRoundings * (strays + w * size) + tiny * static_cast<double>(n);
      const double off = norm(error.data(), n);
      if (off <= limit) continue;
      const auto worst =
          std::ranges::max_element(
              error, {}, [](double e) { return std::isnan(e) ? HUGE_VAL : std::fabs(e); }) -
          error.begin();
      me_->witness.found(
          me_->rank,
          fmt::format(
              "kernel {} gives {} {}, column {}: {:.6g} instead of {:.6g} (the row is off by "
              "{:.2g}, roundings by {:.2g}){}",
              kernel, result.name, place(result.tensor, begin), worst, x[worst], exact[worst], off,
              limit, me_->where()));
      return true;
    }
    return false;
  }

  static std::string place(const Tensor& tensor, std::int64_t element) {
    const std::int64_t row = element / tensor.extent(3), h = row % tensor.extent(2);
    const std::int64_t b = row / tensor.extent(2) % tensor.extent(1);
    return fmt::format("[{}, {}, {}]", row / tensor.extent(2) / tensor.extent(1), b, h);
  }

  Kernels& inner_;
  std::unique_ptr<Kernels> owned_;
  std::shared_ptr<WitnessedRank> me_;
  PlainKernels plain_;
};

}  // namespace

std::unique_ptr<Kernels> witnessed_kernels(Kernels& inner, std::unique_ptr<Kernels> owned,
                                           std::shared_ptr<WitnessedRank> rank) {
  return std::make_unique<WitnessedKernels>(inner, std::move(owned), std::move(rank));
}

}  // namespace sp
