// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <future>
#include <set>

#include "harness/compare/linear_sizes.hpp"
#include "harness/compare/naive.hpp"
#include "harness/compare/stack_noise.hpp"
#include "reference/attention.hpp"
#include "reference/evaluate.hpp"
#include "reference/linear_attention.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

double reference_work(const Problem& problem, bool backward) {
  const Shape& s = problem.shape;
  const double keys = static_cast<double>(problem.projected > 0 ? problem.projected : s.N);
  return static_cast<double>(s.B * s.H * problem.layer_count()) * static_cast<double>(s.N) * keys *
         static_cast<double>(s.D + s.E) * (backward ? 3.5 : 1);
}

// First, middle, last, and tokens spread by the golden ratio: no shard size has a stride in common
// with it.
std::vector<std::int64_t> sample(std::int64_t N) {
  constexpr double kGolden = 0.6180339887498949;
  std::set<std::int64_t> tokens{0, N / 2, N - 1};
  for (int i = 1; static_cast<int>(tokens.size()) < kSampledTokens; ++i) {
    const double fraction = std::fmod(kGolden * i, 1.0);
    tokens.insert(static_cast<std::int64_t>(fraction * static_cast<double>(N)));
  }
  return {tokens.begin(), tokens.end()};
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

void make_absolute(HostTensor& tensor) {
  visit_dtype(tensor.dtype(), [&]<class T>() {
    for (T& element : tensor.as<T>()) element = narrow<T>(std::fabs(widen(element)));
  });
}

// The limits of the softmax part that a window adds to Based.
Limits window_limits(const Problem& problem, const Inputs& inputs, Operands operands) {
  Problem window = problem;
  window.module.reset();
  window.epsilon = 0;
  window.scale = default_scale(problem.shape);
  Limits limits = limits_for(window, inputs, reference::attention(window, inputs),
                             naive_attention(window, inputs, operands), 1, false);
  // As one number per tensor: the sizes of the linear part stand in their place.
  for (Limit* limit : {&limits.out, &limits.d_q, &limits.d_k, &limits.d_v}) {
    double most = 0;
    for (std::int64_t i = 0; i < limit->sizes.size(); ++i)
      most = std::max(most, limit->sizes.at(i));
    limit->absolute += limit->per_size * most;
  }
  return limits;
}

}  // namespace

Oracle::Oracle(const Problem& problem, const Inputs& inputs, bool exact_case, Operands operands)
    : problem_(problem), inputs_(inputs), exact_case_(exact_case), operands_(operands) {
  const bool large = reference_work(problem, !inputs.d_out.absent()) > kMostReferenceWork;
  if (large && problem.family() != Family::kProjectedSoftmax) tokens_ = sample(problem.shape.N);
  if (problem.module) {
    prepare_linear();
  } else if (sampled()) {
    exact_ = reference::attention_rows(problem, inputs, tokens_);
  } else {
    exact_ = reference::attention(problem, inputs);
    naive_ = naive_attention(problem, inputs, operands);
  }
}

void Oracle::prepare_linear() {
  const bool stack = problem_.family() == Family::kHybrid;
  if (sampled()) {
    if (stack || is_normalised(*problem_.module) || !problem_.mask.causal) {
      throw Error(
          ErrorKind::kUsage,
          "this problem is too large to be checked: hybrid stacks, modules with a normaliser "
          "and problems without a mask need the whole reference");
    }
    // Linear in each input: the sizes are the same sums of absolute values.
    auto sizes = std::async(std::launch::async, [&] {
      Inputs positive = inputs_;
      for (HostTensor* tensor : {&positive.q, &positive.k, &positive.v, &positive.d_out})
        make_absolute(*tensor);
      Problem problem = problem_;
      problem.scale = std::fabs(problem.scale);
      return reference::linear_attention_rows(problem, positive, tokens_);
    });
    exact_ = reference::linear_attention_rows(problem_, inputs_, tokens_);
    sizes_ = sizes.get();
    return;
  }
  exact_ = reference::evaluate(problem_, inputs_);
  if (stack) {
    sizes_ = stack_noise(problem_, inputs_, exact_, operands_);
    return;
  }
  sizes_ = linear_sizes(problem_, inputs_, exact_);
  if (problem_.mask.window > 0) window_ = window_limits(problem_, inputs_, operands_);
}

Limits Oracle::limits(int roundings) const {
  if (problem_.family() == Family::kHybrid) return stack_limits_for(problem_, sizes_);
  if (problem_.family() == Family::kLinear) {
    Limits limits = linear_limits_for(problem_, sizes_, exact_case_);
    limits.out.absolute += window_.out.absolute;
    limits.d_q.absolute += window_.d_q.absolute;
    limits.d_k.absolute += window_.d_k.absolute;
    limits.d_v.absolute += window_.d_v.absolute;
    return limits;
  }
  return limits_for(problem_, inputs_, exact_, naive_, roundings, exact_case_);
}

Verdict Oracle::judge(const Outputs& result, int roundings) const {
  if (sampled() && problem_.module) return judge_sampled_linear(result);
  if (sampled()) return judge_sampled(result, roundings);
  return compare(result, exact_, limits(roundings), problem_.dtype);
}

// The verdict's rows as tokens of the whole.
Verdict Oracle::in_whole(Verdict verdict) const {
  for (TensorVerdict& tensor : verdict.tensors) {
    if (tensor.worst < 0) continue;
    std::int64_t& token = tensor.index[tensor.name == "lse" ? 2 : 1];
    token = tokens_[static_cast<std::size_t>(token)];
  }
  return verdict;
}

// Gradients of decays are sums over all tokens: not sampled.
Verdict Oracle::judge_sampled_linear(const Outputs& result) const {
  Outputs rows;
  rows.out = rows_of(result.out, 1, tokens_);
  rows.d_q = rows_of(result.d_q, 1, tokens_);
  rows.d_k = rows_of(result.d_k, 1, tokens_);
  rows.d_v = rows_of(result.d_v, 1, tokens_);
  return in_whole(compare(rows, exact_, limits(1), problem_.dtype));
}

Verdict Oracle::judge_sampled(const Outputs& result, int roundings) const {
  // Query rows are exact on their own; key rows use the out and lse under test, whose rows have
  // just been judged.
  Outputs exact = exact_;
  if ((!result.d_k.absent() || !result.d_v.absent()) &&
      (result.lse.absent() || result.out.absent())) {
    throw Error(ErrorKind::kUsage,
                "at this length d_k and d_v can be checked only together with out and lse");
  }
  const bool keys = !result.d_k.absent() || !result.d_v.absent();
  if (keys) {
    Outputs key_rows =
        reference::attention_key_rows(problem_, inputs_, result.out, result.lse, tokens_);
    exact.d_k = std::move(key_rows.d_k);
    exact.d_v = std::move(key_rows.d_v);
  }
  Outputs rows;
  rows.out = rows_of(result.out, 1, tokens_);
  rows.lse = rows_of(result.lse, 2, tokens_);
  rows.d_q = rows_of(result.d_q, 1, tokens_);
  if (keys) {
    rows.d_k = rows_of(result.d_k, 1, tokens_);
    rows.d_v = rows_of(result.d_v, 1, tokens_);
  }
  const Limits limits =
      sampled_limits_for(problem_, inputs_, exact, roundings, exact_case_, operands_);
  return in_whole(compare(rows, exact, limits, problem_.dtype));
}

}  // namespace sp
