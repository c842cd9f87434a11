// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/oracle.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "harness/compare/likeness.hpp"
#include "harness/compare/linear_sizes.hpp"
#include "harness/compare/linear_terms.hpp"
#include "harness/compare/stack_noise.hpp"
#include "harness/generate/cases.hpp"
#include "reference/attention.hpp"
#include "reference/evaluate.hpp"
#include "reference/linear_attention.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

// Multiply-adds of the plain reference. Above kMost it takes more than 10 s on one core, above kLittle the blocked double
// side is faster.
constexpr double kMost = 4e9, kLittle = 5e7;

double reference_work(const Problem& problem, bool backward) {
  const Shape& s = problem.shape;
  const double keys = static_cast<double>(problem.projected > 0 ? problem.projected : s.N);
  return static_cast<double>(s.B * s.H * problem.layer_count()) * static_cast<double>(s.N) * keys *
         static_cast<double>(s.D + s.E) * (backward ? 3.5 : 1);
}

// Rows `tokens` of axis `axis` of a tensor.
HostTensor rows_of(const HostTensor& whole, std::size_t axis,
                   const std::vector<std::int64_t>& tokens) {
  if (whole.absent()) return {};
  std::vector<std::int64_t> shape = whole.shape();
  std::int64_t before = 1, after = 1;
  for (std::size_t i = 0; i < axis; ++i) before *= shape[i];
  for (std::size_t i = axis + 1; i < shape.size(); ++i) after *= shape[i];
  const std::int64_t N = shape[axis], count = static_cast<std::int64_t>(tokens.size());
  shape[axis] = count;
  HostTensor rows(whole.dtype(), shape);
  for (std::int64_t b = 0; b < before; ++b) {
    for (std::int64_t t = 0; t < count; ++t) {
      for (std::int64_t a = 0; a < after; ++a) {
        rows.set((b * count + t) * after + a,
                 whole.at((b * N + tokens[static_cast<std::size_t>(t)]) * after + a));
      }
    }
  }
  return rows;
}

// The softmax that a window adds to Based.
SoftmaxTruth window_truth(const Problem& problem, const Inputs& inputs, Operands operands) {
  Problem window = problem;
  window.module.reset();
  window.epsilon = 0;
  window.scale = default_scale(problem.shape);
  return softmax_truth(window, inputs, operands);
}

// Elements of results above which a few copies of all of them in double take gigabytes.
constexpr double kMostElements = 1e8;

bool has_sweeps(const Problem& problem) {
  return problem.family() == Family::kLinear && !is_normalised(*problem.module);
}

double elements_of_results(const Problem& problem, bool backward) {
  const Shape& s = problem.shape;
  return static_cast<double>(s.B * s.N) *
         static_cast<double>(s.H * s.E + (backward ? s.H * s.D + s.G * (s.D + s.E) : 0));
}

// Elements of states that the sweeps of linear attention pass.
double sweep_work(const Problem& problem, bool backward) {
  const Shape& s = problem.shape;
  return static_cast<double>(s.B * s.H * s.N) * static_cast<double>(s.D * s.E) *
         (backward ? 2 : 1) * (problem.mask.causal ? 1 : 2);
}

template <class F>
double best_of_two(F&& f) {
  double best = std::numeric_limits<double>::infinity();
  for (int repetition = 0; repetition < 2; ++repetition) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

// A head for each core.
Case small_case(std::int64_t N) {
  Case small;
  small.problem.shape = {1, N,  std::max(1, static_cast<int>(std::thread::hardware_concurrency())),
                         1, 64, 64};
  small.problem.mask.causal = true;
  return small;
}

double seconds_of_sweeps(const Problem& problem, bool backward) {
  if (sweep_work(problem, backward) <= kMost) return 0;
  Case small = small_case(512);
  small.problem.module = problem.module;
  const Inputs inputs = make_inputs(small);
  const double seconds = best_of_two([&] {
    linear_sizes(small.problem, inputs, reference::linear_attention(small.problem, inputs));
  });
  return seconds * sweep_work(problem, backward) / sweep_work(small.problem, true);
}

}  // namespace

bool can_be_sampled(const Problem& problem) {
  return problem.family() == Family::kSoftmax || has_sweeps(problem);
}

double seconds_of_truth(const Problem& problem, bool backward) {
  if (has_sweeps(problem)) return seconds_of_sweeps(problem, backward);
  if (reference_work(problem, backward) <= kMost) return 0;
  const Shape& s = problem.shape;
  const Mask& mask = problem.mask;
  const auto N = static_cast<double>(s.N);
  const double reach = mask.window > 0 ? std::min(N, static_cast<double>(mask.window)) : N;
  const double pairs = static_cast<double>(s.B * s.H) * reach *
                       (mask.causal ? N - reach / 2 : std::min(N, 2 * reach));
  const auto work = [](double count, const Shape& shape, bool back) {
    return count * static_cast<double>((back ? 9 : 2) * shape.D + (back ? 6 : 2) * shape.E);
  };
  Case small = small_case(512);
  small.problem.mask.causal = false;
  const Inputs inputs = make_inputs(small);
  const double best =
      best_of_two([&] { softmax_truth(small.problem, inputs, Operands::kAccumulator); });
  const double small_pairs = 512.0 * 512 * static_cast<double>(small.problem.shape.H);
  return best * work(pairs, s, backward) / work(small_pairs, small.problem.shape, true);
}

Oracle::Oracle(const Problem& problem, const Inputs& inputs, bool exact_case, Operands operands,
               const Sampling& sampling)
    : problem_(problem), inputs_(inputs), exact_case_(exact_case), operands_(operands) {
  if (problem.module) {
    prepare_linear(sampling);
    return;
  }
  const bool backward = !inputs.d_out.absent();
  const double plain = reference_work(problem, backward);
  if (problem.family() == Family::kSoftmax && !sampling.everything &&
      (sampling.tokens > 0 || seconds_of_truth(problem, backward) > sampling.seconds))
    tokens_ = sample_tokens(problem, sampling.tokens > 0 ? sampling.tokens : kSampledTokens,
                            sampling.run);
  if (std::ssize(tokens_) == problem.shape.N) tokens_.clear();
  softmax_ = sampled() ? softmax_truth(problem, inputs, tokens_, operands)
                       : softmax_truth(problem, inputs, operands);
  if (!sampled() && plain < kLittle) softmax_.exact = reference::attention(problem, inputs);
  exact_ = std::move(softmax_.exact);
}

void Oracle::prepare_linear(const Sampling& sampling) {
  const bool backward = !inputs_.d_out.absent();
  if (!has_sweeps(problem_)) return prepare_terms(sampling);
  if (!sampling.everything &&
      (sampling.tokens > 0 || elements_of_results(problem_, backward) > kMostElements ||
       seconds_of_sweeps(problem_, backward) > sampling.seconds))
    tokens_ = sample_tokens(problem_, sampling.tokens > 0 ? sampling.tokens : kSampledTokens,
                            sampling.run);
  if (std::ssize(tokens_) == problem_.shape.N) tokens_.clear();
  exact_ = sampled() ? reference::linear_attention_rows(problem_, inputs_, tokens_)
                     : reference::evaluate(problem_, inputs_);
  sizes_ = sampled() ? linear_sizes(problem_, inputs_, exact_, tokens_)
                     : linear_sizes(problem_, inputs_, exact_);
}

void Oracle::prepare_terms(const Sampling& sampling) {
  if (reference_work(problem_, !inputs_.d_out.absent()) > kMost && !sampling.everything) {
    throw Error(ErrorKind::kUsage,
                "this problem is too large to be checked: hybrid stacks and modules with a "
                "normaliser need the whole reference");
  }
  exact_ = reference::evaluate(problem_, inputs_);
  if (problem_.family() == Family::kHybrid) {
    sizes_ = stack_noise(problem_, inputs_, exact_, operands_);
    return;
  }
  sizes_ = linear_terms(problem_, inputs_, exact_);
  multiply_sizes(sizes_, likeness_of_each(inputs_));
  if (problem_.mask.window > 0) window_ = window_truth(problem_, inputs_, operands_);
}

Limits Oracle::limits(int roundings) const {
  if (problem_.family() == Family::kHybrid) return stack_limits(problem_, sizes_);
  if (has_sweeps(problem_)) return linear_limits(problem_, sizes_, exact_case_);
  if (problem_.module) return term_limits(problem_, sizes_, window_ ? &*window_ : nullptr);
  return softmax_limits(problem_, softmax_, roundings, exact_case_);
}

Verdict Oracle::judge(const Outputs& result, int roundings) const {
  if (sampled()) return judge_sampled(result, roundings);
  return judge_rows(result, roundings);
}

Verdict Oracle::judge_rows(const Outputs& rows, int roundings) const {
  return compare(rows, exact_, limits(roundings), problem_.dtype);
}

// Gradients of decays are sums over all tokens: not sampled.
Outputs Oracle::rows(const Outputs& result) const {
  if (!sampled()) return result;
  Outputs rows;
  rows.out = rows_of(result.out, 1, tokens_);
  rows.lse = rows_of(result.lse, 2, tokens_);
  rows.d_q = rows_of(result.d_q, 1, tokens_);
  rows.d_k = rows_of(result.d_k, 1, tokens_);
  rows.d_v = rows_of(result.d_v, 1, tokens_);
  return rows;
}

Verdict Oracle::judge_sampled(const Outputs& result, int roundings) const {
  Verdict verdict = judge_rows(rows(result), roundings);
  // Its rows as tokens of the whole.
  for (TensorVerdict& tensor : verdict.tensors) {
    if (tensor.worst < 0) continue;
    const auto in_whole = [&](std::int64_t& token) {
      token = tokens_[static_cast<std::size_t>(token)];
    };
    in_whole(tensor.index[tensor.name == "lse" ? 2 : 1]);
    if (tensor.name != "lse" && tensor.row_index.size() > 1) in_whole(tensor.row_index[1]);
  }
  return verdict;
}

}  // namespace sp
