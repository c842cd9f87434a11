// The gradients of linear attention and of stacks against differences of their forward pass.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "reference/evaluate.hpp"
#include "tests/unit/reference_linear_cases.hpp"

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
                           {"log_decay", &Inputs::log_decay, &Outputs::d_log_decay},
                           {"gamma", &Inputs::gamma, &Outputs::d_gamma},
                           {"beta", &Inputs::beta, &Outputs::d_beta}};
constexpr double kLimit = 1e-8;  // as for softmax attention

// <d_out, out>: the scalar whose gradient the backward pass returns.
double loss(const Problem& problem, const Inputs& inputs) {
  Inputs forward = inputs;
  forward.d_out = {};
  const HostTensor out = reference::evaluate(problem, forward).out;
  double sum = 0;
  for (std::int64_t n = 0; n < out.size(); ++n) sum += inputs.d_out.at(n) * out.at(n);
  return sum;
}

// Two central differences combined so that the h^2 terms cancel.
double derivative(const Case& c, const Pair& pair, const HostTensor& direction) {
  constexpr double h = 1e-3;
  const auto at = [&](double step) {
    Inputs inputs = c.inputs;
    HostTensor& x = inputs.*pair.input;
    for (std::int64_t n = 0; n < x.size(); ++n) x.set(n, x.at(n) + step * direction.at(n));
    return loss(c.problem, inputs);
  };
  return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
}

HostTensor unit_direction(std::uint64_t seed, const HostTensor& like) {
  HostTensor direction = Draw(seed).normal(DType::kF64, like.shape());
  double norm = 0;
  for (std::int64_t n = 0; n < like.size(); ++n) norm = std::hypot(norm, direction.at(n));
  for (std::int64_t n = 0; n < like.size(); ++n) direction.set(n, direction.at(n) / norm);
  return direction;
}

// Worst error over the inputs, relative to the scale of each gradient.
double direction_error(const Case& c, std::uint64_t seed) {
  const Outputs result = reference::evaluate(c.problem, c.inputs);
  double worst = 0;
  for (const Pair& pair : kPairs) {
    const HostTensor& x = c.inputs.*pair.input;
    if (x.absent()) continue;
    const HostTensor& gradient = result.*pair.gradient;
    const HostTensor direction = unit_direction(seed + 1000, x);
    double along = 0;
    for (std::int64_t n = 0; n < x.size(); ++n) along += direction.at(n) * gradient.at(n);
    const double error =
        std::abs(along - derivative(c, pair, direction)) / std::max(1.0, largest(gradient));
    EXPECT_TRUE(error <= kLimit) << error << ", tensor " << pair.tensor;
    if (!(error <= worst)) worst = error;
  }
  return worst;
}

// Rebased has features of width sqrt(epsilon) and sqrt(1e-6), where differences with steps of 1e-3
// mean nothing: a large epsilon and three or more well separated channels keep away from them.
Case smooth_case(std::uint64_t seed, Module module, std::int64_t longest) {
  Case c = linear_case(seed, module, DType::kF64, longest);
  if (module != Module::kRebased) return c;
  c.problem.epsilon = 1;
  c.problem.shape.D = std::max<std::int64_t>(c.problem.shape.D, 4);
  Draw draw(seed + 2000);
  c.inputs = draw.inputs(c.problem);
  draw_module_inputs(draw, c);
  for (const auto x : {&Inputs::q, &Inputs::k})
    for (std::int64_t n = 0; n < (c.inputs.*x).size(); ++n)
      (c.inputs.*x).set(n, 3 * (c.inputs.*x).at(n));
  return c;
}

TEST(ReferenceLinearGradient, MatchesDifferencesInRandomDirectionsForAnyModule) {
  for (const Module module : kModules) {
    double worst = 0;
    for (std::uint64_t seed = 0; seed < 80; ++seed) {
      const Case c = smooth_case(seed, module, 10);
      SCOPED_TRACE(name(c, seed));
      worst = std::max(worst, direction_error(c, seed));
    }
    std::cout << name_of(module) << ": worst error " << worst << ", limit " << kLimit << '\n';
  }
}

TEST(ReferenceLinearGradient, MatchesDifferencesInRandomDirectionsForStacks) {
  double worst = 0;
  for (const char* layers : {"LN", "NL", "LLN", "LNLL"}) {
    for (const Module module : {Module::kBasic, Module::kLightning, Module::kRetention}) {
      for (std::uint64_t seed = 0; seed < 8; ++seed) {
        Case c = stack_case(seed, layers, module);
        // Without a normaliser outputs grow from layer to layer; the keys' size keeps them near 1.
        for (std::int64_t n = 0; n < c.inputs.k.size(); ++n)
          c.inputs.k.set(n, 0.3 * c.inputs.k.at(n));
        SCOPED_TRACE(name(c, seed));
        worst = std::max(worst, direction_error(c, seed));
      }
    }
  }
  std::cout << "stacks: worst error " << worst << ", limit " << kLimit << '\n';
}

TEST(ReferenceLinearGradient, MatchesDifferencesElementByElement) {
  for (const Module module : kModules) {
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      const Case c = smooth_case(seed, module, 4);
      const Outputs result = reference::evaluate(c.problem, c.inputs);
      for (const Pair& pair : kPairs) {
        const HostTensor& x = c.inputs.*pair.input;
        SCOPED_TRACE(name(c, seed) + ", tensor " + pair.tensor);
        for (std::int64_t n = 0; n < x.size(); n += 1 + x.size() / 16) {
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
}

}  // namespace
}  // namespace sp::test
