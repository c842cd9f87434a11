// The gradients of the reference against central differences of its forward pass.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "reference/attention.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp::test {
namespace {

struct Pair {
  const char* tensor;
  HostTensor Inputs::* input;
  HostTensor Outputs::* gradient;
};
constexpr Pair kPairs[] = {{"q", &Inputs::q, &Outputs::d_q},
                           {"k", &Inputs::k, &Outputs::d_k},
                           {"v", &Inputs::v, &Outputs::d_v},
                           {"projection_k", &Inputs::projection_k, &Outputs::d_projection_k},
                           {"projection_v", &Inputs::projection_v, &Outputs::d_projection_v}};

// <d_out, out>: the scalar whose gradient the backward pass returns.
double loss(const Problem& problem, const Inputs& inputs) {
  Inputs forward = inputs;
  forward.d_out = {};
  const HostTensor out = reference::attention(problem, forward).out;
  double sum = 0;
  for (std::int64_t n = 0; n < out.size(); ++n) sum += inputs.d_out.at(n) * out.at(n);
  return sum;
}

HostTensor moved(const HostTensor& x, double step, const HostTensor& direction) {
  HostTensor y = x;
  for (std::int64_t n = 0; n < x.size(); ++n) y.set(n, x.at(n) + step * direction.at(n));
  return y;
}

// Two central differences combined so that the h^2 terms cancel; with h = 1e-3 truncation (h^4) and
// rounding (u / h) are both near 1e-12 times the derivatives of the loss.
double derivative(const Case& c, const Pair& pair, const HostTensor& direction) {
  constexpr double h = 1e-3;
  const auto at = [&](double step) {
    Inputs inputs = c.inputs;
    inputs.*pair.input = moved(c.inputs.*pair.input, step, direction);
    return loss(c.problem, inputs);
  };
  return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
}

constexpr double kLimit = 1e-8;

TEST(ReferenceGradient, MatchesDifferencesInRandomDirectionsForAnyProblem) {
  double worst = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Case c = any_case(seed, DType::kF64, 12);
    const Outputs result = reference::attention(c.problem, c.inputs);
    for (const Pair& pair : kPairs) {
      const HostTensor& x = c.inputs.*pair.input;
      if (x.absent()) continue;
      SCOPED_TRACE(name(c, seed) + ", tensor " + pair.tensor);
      HostTensor direction = Draw(seed + 1000).normal(DType::kF64, x.shape());
      double norm = 0, along = 0;
      for (std::int64_t n = 0; n < x.size(); ++n) norm = std::hypot(norm, direction.at(n));
      for (std::int64_t n = 0; n < x.size(); ++n) direction.set(n, direction.at(n) / norm);
      for (std::int64_t n = 0; n < x.size(); ++n)
        along += direction.at(n) * (result.*pair.gradient).at(n);
      const double error = std::abs(along - derivative(c, pair, direction)) /
                           std::max(1.0, largest(result.*pair.gradient));
      ASSERT_TRUE(error <= kLimit) << error;
      worst = std::max(worst, error);
    }
  }
  std::cout << "worst error " << worst << ", limit " << kLimit << '\n';
}

TEST(ReferenceGradient, MatchesDifferencesElementByElement) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Case c = any_case(seed, DType::kF64, 4);
    const Outputs result = reference::attention(c.problem, c.inputs);
    for (const Pair& pair : kPairs) {
      const HostTensor& x = c.inputs.*pair.input;
      if (x.absent()) continue;
      SCOPED_TRACE(name(c, seed) + ", tensor " + pair.tensor);
      for (std::int64_t n = 0; n < x.size(); ++n) {
        HostTensor direction(DType::kF64, x.shape());
        direction.set(n, 1);
        const double error =
            std::abs((result.*pair.gradient).at(n) - derivative(c, pair, direction)) /
            std::max(1.0, largest(result.*pair.gradient));
        ASSERT_TRUE(error <= kLimit) << "element " << n << ": " << error;
      }
    }
  }
}

}  // namespace
}  // namespace sp::test
