// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/limits.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace sp {
namespace {

constexpr double kOutFactor = 2, kGradientFactor = 3;  // times the error of the naive version
constexpr double kMerge = 8, kSampled = 64;            // times w (1 + L)

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

Limits derive(const Problem& problem, const Inputs& inputs, const Outputs& exact,
              const Outputs& naive, int roundings, bool exact_case, double merge_factor) {
  const double u = unit_roundoff(problem.dtype);
  const double w = unit_roundoff(accumulator_of(problem.dtype));
  const double subnormal = problem.dtype == DType::kF16 ? 0x1p-25 : 0;
  const double merge = merge_factor * w * (1 + largest(exact.lse));
  const double V = largest(inputs.v);
  const auto limit = [&](const HostTensor& naive_tensor, const HostTensor& exact_tensor,
                         double factor, double size) {
    return Limit{
        u, factor * naive_error(naive_tensor, exact_tensor) + merge * size + roundings * subnormal,
        exact_case};
  };
  Limits limits;
  limits.out = limit(naive.out, exact.out, kOutFactor, V);
  limits.out.absolute += (roundings - 1) * u * V;
  limits.lse = {w, kOutFactor * naive_error(naive.lse, exact.lse) + merge, false};
  if (inputs.d_out.absent()) return limits;
  const double gradient = kGradientFactor * roundings;

  // C: errors of the queries and heads that one key collects add up like a random walk.
  const Shape& s = problem.shape;
  const double C = std::sqrt(static_cast<double>(std::max<std::int64_t>(s.N, 1) * (s.H / s.G)));
  const double X = 2 * largest_row_sum(inputs.d_out) * V;
  const double K = largest(inputs.k), Q = largest(inputs.q), scale = std::fabs(problem.scale);
  limits.d_q = limit(naive.d_q, exact.d_q, gradient, scale * K * X);
  limits.d_k = limit(naive.d_k, exact.d_k, gradient, scale * Q * X * C);
  limits.d_v = limit(naive.d_v, exact.d_v, gradient, largest(inputs.d_out) * C);
  if (problem.projected > 0) {
    const double B = static_cast<double>(s.B * s.G * std::max(s.D, s.E));
    limits.d_projection_k =
        limit(naive.d_projection_k, exact.d_projection_k, gradient, scale * Q * X * C * K * B);
    limits.d_projection_v = limit(naive.d_projection_v, exact.d_projection_v, gradient,
                                  largest(inputs.d_out) * C * V * B);
    // Projected keys and values replace k and v: their size is that of a projection of all tokens.
    const double PK = largest_row_sum(inputs.projection_k),
                 PV = largest_row_sum(inputs.projection_v);
    limits.d_k = limit(naive.d_k, exact.d_k, gradient, scale * Q * X * C * PK);
    limits.d_v = limit(naive.d_v, exact.d_v, gradient, largest(inputs.d_out) * C * PV);
  }
  return limits;
}

}  // namespace

Limits limits_for(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                  const Outputs& naive, int roundings, bool exact_case) {
  return derive(problem, inputs, exact, naive, roundings, exact_case, kMerge);
}

Limits sampled_limits_for(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                          int roundings, bool exact_case) {
  return derive(problem, inputs, exact, exact, roundings, exact_case, kSampled);
}

}  // namespace sp
