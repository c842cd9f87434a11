// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/limits.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace sp {
namespace {

constexpr double kOutFactor = 2, kGradientFactor = 3;  // times the error of the naive version
constexpr double kMerge = 8, kSampled = 64;            // times w (1 + L)
constexpr double kProducts = 4;                        // times w, of dp and delta
constexpr double kLinear = 8;                          // times w A
constexpr double kNoise = 2;                           // times the change of a stack

double largest(const HostTensor& tensor) {
  double most = 0;
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    if (std::isfinite(tensor.at(i))) most = std::max(most, std::fabs(tensor.at(i)));
  }
  return most;
}

// Largest |naive - exact| where both are finite. A naive NaN makes the limit NaN, which fails.
double naive_error(const HostTensor& naive, const HostTensor& exact) {
  double worst = 0;
  for (std::int64_t i = 0; i < std::min(naive.size(), exact.size()); ++i) {
    if (std::isinf(exact.at(i)) && naive.at(i) == exact.at(i)) continue;
    const double error = std::fabs(naive.at(i) - exact.at(i));
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

// max over rows of the sum over the last axis of |x|
double largest_row_sum(const HostTensor& tensor) {
  if (tensor.absent() || tensor.size() == 0) return 0;
  const std::int64_t row = tensor.shape().back();
  double most = 0;
  for (std::int64_t begin = 0; begin < tensor.size(); begin += row) {
    double sum = 0;
    for (std::int64_t i = begin; i < begin + row; ++i) sum += std::fabs(tensor.at(i));
    most = std::max(most, sum);
  }
  return most;
}

// max over tokens n of the sum over batch, heads and size of |x[b, n, h, d]|
double largest_token_sum(const HostTensor& x) {
  const std::int64_t N = x.extent(1), width = x.extent(2) * x.extent(3);
  std::vector<double> sums(static_cast<std::size_t>(N));
  for (std::int64_t i = 0; i < x.size(); ++i) {
    sums[static_cast<std::size_t>(i / width % N)] += std::fabs(x.at(i));
  }
  return sums.empty() ? 0 : *std::max_element(sums.begin(), sums.end());
}

// Half the distance of the smallest numbers of the storage type.
double subnormal_of(const Problem& problem) { return problem.dtype == DType::kF16 ? 0x1p-25 : 0; }

Limits derive(const Problem& problem, const Inputs& inputs, const Outputs& exact,
              const NaiveOutputs& naive, int roundings, bool exact_case, double merge_factor,
              double rounded_operands = 0) {
  const double u = unit_roundoff(problem.dtype);
  const double w = unit_roundoff(accumulator_of(problem.dtype));
  const double subnormal = subnormal_of(problem);
  const double weights = merge_factor * w * (1 + largest(exact.lse));  // relative, of a probability
  const auto limit = [&](const HostTensor& naive_tensor, const HostTensor& exact_tensor,
                         double factor, double floor, const HostTensor& size = {}) {
    const double naive_part = factor * naive_error(naive_tensor, exact_tensor);
    return Limit{u, naive_part + floor + roundings * subnormal, exact_case, u, size};
  };
  const double V = naive.largest_value, K = naive.largest_key;
  Limits limits;
  limits.out = limit(naive.out, exact.out, kOutFactor,
                     ((roundings - 1) * u + weights + rounded_operands) * V, naive.sizes.out);
  limits.lse = {w, kOutFactor * naive_error(naive.lse, exact.lse) + weights, false};
  if (inputs.d_out.absent()) return limits;

  const double Q = largest(inputs.q), dO = largest(inputs.d_out);
  const double row = naive.d_scores_per_query, column = naive.d_scores_per_key;
  const double p = naive.probability_per_key;
  const double products =
      kProducts * w * std::fabs(problem.scale) * largest_row_sum(inputs.d_out) * V;
  const double factor = kGradientFactor * roundings;
  const double d_q = (weights * 2 + rounded_operands) * row * K + products * K;
  double d_k = weights * (column + p * row) * Q + products * p * Q + rounded_operands * column * Q;
  double d_v = (weights + rounded_operands) * p * dO;
  if (problem.projected > 0) {  // these are of the projected keys and values: carry them back
    limits.d_projection_k = limit(naive.d_projection_k, exact.d_projection_k, factor,
                                  d_k * largest_token_sum(inputs.k));
    limits.d_projection_v = limit(naive.d_projection_v, exact.d_projection_v, factor,
                                  d_v * largest_token_sum(inputs.v));
    d_k *= largest_row_sum(inputs.projection_k);
    d_v *= largest_row_sum(inputs.projection_v);
  }
  limits.d_q = limit(naive.d_q, exact.d_q, factor, d_q, naive.sizes.d_q);
  limits.d_k = limit(naive.d_k, exact.d_k, factor, d_k, naive.sizes.d_k);
  limits.d_v = limit(naive.d_v, exact.d_v, factor, d_v, naive.sizes.d_v);
  return limits;
}

}  // namespace

Limits limits_for(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                  const NaiveOutputs& naive, int roundings, bool exact_case) {
  return derive(problem, inputs, exact, naive, roundings, exact_case, kMerge);
}

Limits sampled_limits_for(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                          int roundings, bool exact_case, Operands operands) {
  // Without a naive run the sums are bounded: |dp - delta| by 2 X, what a key collects by a random
  // walk over its queries and heads.
  const Shape& s = problem.shape;
  NaiveOutputs bounds;
  static_cast<Outputs&>(bounds) = exact;
  bounds.largest_key = largest(inputs.k);
  bounds.largest_value = largest(inputs.v);
  if (!inputs.d_out.absent()) {
    bounds.probability_per_key = std::sqrt(static_cast<double>(s.N * (s.H / s.G)));
    bounds.d_scores_per_query =
        2 * std::fabs(problem.scale) * largest_row_sum(inputs.d_out) * bounds.largest_value;
    bounds.d_scores_per_key = bounds.d_scores_per_query * bounds.probability_per_key;
  }
  const bool rounded =
      operands == Operands::kStorage && problem.dtype != accumulator_of(problem.dtype);
  return derive(problem, inputs, exact, bounds, roundings, exact_case, kSampled,
                rounded ? unit_roundoff(problem.dtype) : 0);
}

Limits linear_limits_for(const Problem& problem, const Outputs& sizes, bool exact_case) {
  const double u = unit_roundoff(problem.dtype);
  const double w = unit_roundoff(accumulator_of(problem.dtype));
  // In f64 the reference rounds like the algorithm.
  const double factor = (problem.dtype == DType::kF64 ? 2 : 1) * kLinear;
  const auto limit = [&](const HostTensor& size, double relative, bool exact) {
    return Limit{relative, relative == u ? subnormal_of(problem) : 0, exact, factor * w, size};
  };
  Limits limits;
  limits.out = limit(sizes.out, u, exact_case);
  limits.d_q = limit(sizes.d_q, u, exact_case);
  limits.d_k = limit(sizes.d_k, u, exact_case);
  limits.d_v = limit(sizes.d_v, u, exact_case);
  // These hold the accumulator type, and their sums are too long for exact cases.
  limits.d_log_decay = limit(sizes.d_log_decay, w, false);
  limits.d_gamma = limit(sizes.d_gamma, w, false);
  limits.d_beta = limit(sizes.d_beta, w, false);
  return limits;
}

Limits stack_limits_for(const Problem& problem, const Outputs& noise) {
  const double u = unit_roundoff(problem.dtype);
  const double w = unit_roundoff(accumulator_of(problem.dtype));
  const auto limit = [&](const HostTensor& change, double relative) {
    return Limit{relative, (change.absent() ? 0 : kNoise * change.at(0)) + subnormal_of(problem)};
  };
  Limits limits;
  limits.out = limit(noise.out, u);
  limits.d_q = limit(noise.d_q, u);
  limits.d_k = limit(noise.d_k, u);
  limits.d_v = limit(noise.d_v, u);
  limits.d_log_decay = limit(noise.d_log_decay, w);
  return limits;
}

}  // namespace sp
