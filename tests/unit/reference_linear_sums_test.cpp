// The recurrence of linear attention against the same definition as sums over pairs.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <iostream>

#include "reference/linear_attention.hpp"
#include "reference/linear_sums.hpp"
#include "tests/unit/reference_linear_cases.hpp"

namespace sp::test {
namespace {

constexpr std::uint64_t kSeeds = 300;
// Sums of at most 24 terms over 55 features, 1e3 u each; the normalisers of Based are 1/2 or more.
constexpr double kLimit = 1e-12;
// The sum of 16 gates of 20 each is rounded to 320 u, and its exponential with it.
constexpr double kStrongGateLimit = 1e-11;

double compare(const Case& c) {
  return relative_difference(reference::linear_attention(c.problem, c.inputs),
                             reference::linear_sums(c.problem, c.inputs));
}

TEST(ReferenceLinearSums, EqualTheRecurrenceForAnyProblemOfAnyModule) {
  for (const Module module : kModules) {
    double worst = 0;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Case c = linear_case(seed, module);
      SCOPED_TRACE(name(c, seed));
      ASSERT_NO_THROW(validate(c.problem, c.inputs));
      const double error = compare(c) / conditioning(c);
      ASSERT_TRUE(error <= kLimit) << error;
      worst = std::max(worst, error);
    }
    std::cout << name_of(module) << ": worst error " << worst << ", limit " << kLimit << '\n';
  }
}

TEST(ReferenceLinearSums, EqualTheRecurrenceWithStrongGates) {
  double worst = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case c = linear_case(seed, Module::kGla);
    Draw draw(seed + 1000);
    c.inputs.log_decay = gates(draw, c.inputs.log_decay.shape(), 20, 1);
    SCOPED_TRACE(name(c, seed));
    const double error = compare(c);
    ASSERT_TRUE(error <= kStrongGateLimit) << error;
    worst = std::max(worst, error);
  }
  std::cout << "strong gates: worst error " << worst << ", limit " << kStrongGateLimit << '\n';
}

TEST(ReferenceLinearSums, EqualTheRecurrenceAcrossKeptStates) {
  // Longer than two strides of the states that the decay's gradient keeps.
  for (const Module module : {Module::kRetention, Module::kGla}) {
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      Case c;
      Draw draw(seed);
      c.problem.shape = {1, 128 + draw.integer(0, 6), 2, 1, 3, 2};
      c.problem.dtype = DType::kF64;
      c.problem.module = module;
      c.problem.mask.causal = seed % 2 == 0;
      if (seed >= 2) c.problem.mask.segment_ids = segment_runs(draw, c.problem.shape);
      c.inputs = draw.inputs(c.problem);
      draw_module_inputs(draw, c);
      SCOPED_TRACE(name(c, seed));
      ASSERT_TRUE(compare(c) <= kLimit);
    }
  }
}

TEST(ReferenceLinearSums, EqualTheRecurrenceForEmptyProblems) {
  for (const Module module : kModules) {
    for (const auto& [B, N] : {std::pair<std::int64_t, std::int64_t>{2, 0}, {0, 5}, {0, 0}}) {
      for (const bool causal : {false, true}) {
        Case c = linear_case(1, module);
        c.problem.shape = {B, N, 4, 2, 3, 5};
        c.problem.mask = {.causal = causal, .window = 0, .segment_ids = {}};
        Draw draw(0);
        c.inputs = draw.inputs(c.problem);
        draw_module_inputs(draw, c);
        SCOPED_TRACE(name(c, 0));
        ASSERT_NO_THROW(validate(c.problem, c.inputs));
        const Outputs result = reference::linear_attention(c.problem, c.inputs);
        using Extents = std::vector<std::int64_t>;
        EXPECT_EQ(result.out.shape(), (Extents{B, N, 4, 5}));
        EXPECT_EQ(result.d_q.shape(), (Extents{B, N, 4, 3}));
        EXPECT_EQ(result.d_k.shape(), (Extents{B, N, 2, 3}));
        EXPECT_EQ(result.d_v.shape(), (Extents{B, N, 2, 5}));
        EXPECT_EQ(result.d_log_decay.shape(), c.inputs.log_decay.shape());
        EXPECT_EQ(result.d_gamma.shape(), c.inputs.gamma.shape());
        EXPECT_EQ(result.d_beta.shape(), c.inputs.beta.shape());
        EXPECT_TRUE(result.lse.absent());
        EXPECT_TRUE(compare(c) == 0);
      }
    }
  }
}

TEST(ReferenceLinearSums, AndTheRecurrenceReturnNoGradientWithoutCotangent) {
  for (const Module module : kModules) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      Case c = linear_case(seed, module);
      SCOPED_TRACE(name(c, seed));
      const Outputs both = reference::linear_attention(c.problem, c.inputs);
      const Outputs sums = reference::linear_sums(c.problem, c.inputs);
      c.inputs.d_out = {};
      const Outputs forward = reference::linear_attention(c.problem, c.inputs);
      ASSERT_TRUE(same_bits(reference::linear_sums(c.problem, c.inputs).out, sums.out));
      Outputs expected;
      expected.out = both.out;
      ASSERT_TRUE(same_bits(forward, expected));
    }
  }
}

}  // namespace
}  // namespace sp::test
