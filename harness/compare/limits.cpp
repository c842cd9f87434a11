// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/limits.hpp"

#include <cmath>

namespace sp {
namespace {

constexpr double kElement = 8, kRow = 4, kWhole = 1;
constexpr double kStack = 1.5;  // times those, of a stack
constexpr double kLinear = 8;   // times w A

double floor_of_sums(const Problem& problem) {
  return problem.dtype == DType::kF64 ? 1e-150 : 0x1p-126;
}
double floor_of(const Problem& problem) {
  return problem.dtype == DType::kF16 ? 0x1p-25 : floor_of_sums(problem);
}

// In f64 the reference rounds like the algorithm.
double of_reference(const Problem& problem) { return problem.dtype == DType::kF64 ? 2 : 1; }

}  // namespace

double factor_of_element() { return kElement; }
double factor_of_row(double n) { return kRow + (kElement - kRow) / std::sqrt(n); }
double factor_of_rows(double rows, double n) {
  return kWhole + (factor_of_row(n) - kWhole) / std::sqrt(rows);
}

Limits softmax_limits(const Problem& problem, const SoftmaxTruth& truth, int roundings,
                      bool exact_case) {
  const double u = unit_roundoff(problem.dtype);
  const double w = unit_roundoff(accumulator_of(problem.dtype));
  const auto limit = [&](const HostTensor& sizes, double relative, bool exact) {
    return Limit{relative, floor_of(problem) * roundings,    exact,
                 sizes,    kElement * of_reference(problem), true};
  };
  Limits limits;
  HostTensor out = truth.sizes.out;
  for (std::int64_t i = 0; i < out.size(); ++i)
    out.set(i, std::hypot(out.at(i), (roundings - 1) * truth.partial.at(i)));
  limits.out = limit(out, u, exact_case);
  limits.lse = limit(truth.sizes.lse, w, false);
  limits.d_q = limit(truth.sizes.d_q, u, exact_case);
  limits.d_k = limit(truth.sizes.d_k, u, exact_case);
  limits.d_v = limit(truth.sizes.d_v, u, exact_case);
  limits.d_projection_k = limit(truth.sizes.d_projection_k, u, exact_case);
  limits.d_projection_v = limit(truth.sizes.d_projection_v, u, exact_case);
  return limits;
}

Limits linear_limits(const Problem& problem, const Outputs& sizes, bool exact_case) {
  const double u = unit_roundoff(problem.dtype);
  const double w = unit_roundoff(accumulator_of(problem.dtype));
  const auto limit = [&](const HostTensor& size, bool exact) {
    return Limit{u, floor_of(problem), exact, size, kElement * of_reference(problem), true};
  };
  Limits limits;
  limits.out = limit(sizes.out, exact_case);
  limits.d_q = limit(sizes.d_q, exact_case);
  limits.d_k = limit(sizes.d_k, exact_case);
  limits.d_v = limit(sizes.d_v, exact_case);
  // Of the accumulator type, and of sums too long for exact cases; sums of neighbours have their errors in common.
  limits.d_log_decay = {w, floor_of_sums(problem), false, sizes.d_log_decay,
                        kElement * of_reference(problem)};
  return limits;
}

Limits term_limits(const Problem& problem, const Outputs& terms, const SoftmaxTruth* window) {
  const double u = unit_roundoff(problem.dtype);
  const double w = unit_roundoff(accumulator_of(problem.dtype));
  const double factor = of_reference(problem) * kLinear * w;
  const auto limit = [&](HostTensor Outputs::* x, double relative) {
    HostTensor size = terms.*x;
    if (window != nullptr && !(window->sizes.*x).absent()) {
      for (std::int64_t i = 0; i < size.size(); ++i)
        size.set(i, size.at(i) + kElement / (kLinear * w) * (window->sizes.*x).at(i));
    }
    return Limit{relative, relative == u ? floor_of(problem) : 0, false, size, factor};
  };
  Limits limits;
  limits.out = limit(&Outputs::out, u);
  limits.d_q = limit(&Outputs::d_q, u);
  limits.d_k = limit(&Outputs::d_k, u);
  limits.d_v = limit(&Outputs::d_v, u);
  limits.d_log_decay = limit(&Outputs::d_log_decay, w);
  limits.d_gamma = limit(&Outputs::d_gamma, w);
  limits.d_beta = limit(&Outputs::d_beta, w);
  return limits;
}

Limits stack_limits(const Problem& problem, const Outputs& sizes) {
  const double u = unit_roundoff(problem.dtype);
  const double w = unit_roundoff(accumulator_of(problem.dtype));
  const auto limit = [&](const HostTensor& size, double relative) {
    return Limit{relative, floor_of(problem), false, size, kStack * kElement, true};
  };
  Limits limits;
  limits.out = limit(sizes.out, u);
  limits.d_q = limit(sizes.d_q, u);
  limits.d_k = limit(sizes.d_k, u);
  limits.d_v = limit(sizes.d_v, u);
  limits.d_log_decay = limit(sizes.d_log_decay, w);
  return limits;
}

}  // namespace sp
