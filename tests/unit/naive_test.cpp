// The naive yardstick: close to the reference in the way its precision allows, and never NaN.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/naive.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <iostream>

#include "reference/attention.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp::test {
namespace {

double error_of_naive(const Case& c) {
  return relative_difference(naive_attention(c.problem, c.inputs),
                             reference::attention(c.problem, c.inputs));
}

// Largest relative difference over seeds; fails on the first case above the limit.
void expect_within(DType dtype, double limit) {
  double worst = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Case c = any_case(seed, dtype, 48);
    SCOPED_TRACE(name(c, seed));
    const double error = error_of_naive(c);
    ASSERT_TRUE(error <= limit) << error;
    worst = std::max(worst, error);
  }
  std::cout << name_of(dtype) << ": worst error " << worst << ", limit " << limit << '\n';
}

TEST(Naive, IsWithinRoundingOfTheReferenceInSinglePrecision) { expect_within(DType::kF32, 1e-5); }

TEST(Naive, IsWithinRoundingOfTheReferenceInDoublePrecision) { expect_within(DType::kF64, 1e-13); }

TEST(Naive, RoundsToHalfPrecisionOnlyWhereATrainingStepDoes) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    double worst = 0;  // of d_q, against its bound
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
      const Case c = any_case(seed, dtype, 48);
      SCOPED_TRACE(name(c, seed));
      const Outputs result = naive_attention(c.problem, c.inputs);
      const Outputs truth = reference::attention(c.problem, c.inputs);
      for (const auto x : {&Outputs::out, &Outputs::lse, &Outputs::d_v, &Outputs::d_projection_v})
        ASSERT_TRUE(difference(result.*x, truth.*x) <= 1e-5 * std::max(1.0, largest(truth.*x)));
      if (c.problem.projected > 0) continue;
      // delta = <d_out, stored out> errs by u <|d_out|, |out|>, and d_q by scale |k| times that.
      const double bound = unit_roundoff(dtype) * static_cast<double>(c.problem.shape.E) *
                           largest(c.inputs.d_out) * largest(truth.out) * c.problem.scale *
                           largest(c.inputs.k);
      const double error = difference(result.d_q, truth.d_q);
      ASSERT_TRUE(error <= bound + 1e-5) << error << " above " << bound;
      worst = std::max(worst, error / bound);
    }
    EXPECT_TRUE(worst >= 0.1) << "out was not rounded to storage before delta";
  }
}

TEST(Naive, StaysFiniteForScoresOfTenThousand) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Case c = any_case(seed, DType::kF32);
    c.problem.scale = 3e3;
    SCOPED_TRACE(name(c, seed));
    const Outputs result = naive_attention(c.problem, c.inputs);
    for (const auto x : {&Outputs::out, &Outputs::lse, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v,
                         &Outputs::d_projection_k, &Outputs::d_projection_v})
      for (std::int64_t n = 0; n < (result.*x).size(); ++n)
        ASSERT_TRUE(std::isfinite((result.*x).at(n))) << "element " << n;
    const double scores = std::max(1.0, largest(reference::attention(c.problem, c.inputs).lse));
    ASSERT_TRUE(difference(result.lse, reference::attention(c.problem, c.inputs).lse) <=
                1e-5 * scores);
  }
}

TEST(Naive, OfAnEmptyProblemIsEmpty) {
  for (const std::int64_t projected : {0, 3}) {
    for (const auto& [B, N] : {std::pair<std::int64_t, std::int64_t>{2, 0}, {0, 5}}) {
      Case c;
      c.problem.shape = {B, N, 4, 2, 3, 5};
      c.problem.projected = projected;
      c.inputs = Draw(0).inputs(c.problem);
      SCOPED_TRACE(name(c, 0));
      EXPECT_TRUE(error_of_naive(c) == 0);
    }
  }
}

}  // namespace
}  // namespace sp::test
