// The limit for kernels that round probabilities and score gradients to storage before they
// multiply them: wide enough for that rounding, and for nothing coarser.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "harness/compare/oracle.hpp"
#include "harness/generate/cases.hpp"

namespace sp::test {
namespace {

constexpr int kProblems = 120;

// To the storage type, or to `bits` bits of significand fewer.
double rounded(double x, DType dtype, int bits) {
  if (bits > 0) {
    int exponent = 0;
    const double fraction = std::frexp(x, &exponent);
    const double steps = 0.5 / unit_roundoff(dtype) / std::exp2(bits) * 2;
    return std::ldexp(std::nearbyint(fraction * steps) / steps, exponent);
  }
  return visit_dtype(dtype, [&]<class T>() {
    return static_cast<double>(widen(narrow<T>(static_cast<float>(x))));
  });
}

// FlashAttention-2 in double, with its operands rounded.
Outputs tensor_core_attention(const Problem& problem, const Inputs& inputs, int bits) {
  const Shape& s = problem.shape;
  const auto at = [&](const HostTensor& x, std::int64_t b, std::int64_t n, std::int64_t h,
                      std::int64_t c) {
    return x.at(((b * s.N + n) * x.extent(2) + h) * x.extent(3) + c);
  };
  const auto zeros = [&](std::int64_t heads, std::int64_t size) {
    return HostTensor(DType::kF64, {s.B, s.N, heads, size});
  };
  Outputs result{.out = zeros(s.H, s.E), .lse = HostTensor(DType::kF64, {s.B, s.H, s.N})};
  result.d_q = zeros(s.H, s.D);
  result.d_k = zeros(s.G, s.D);
  result.d_v = zeros(s.G, s.E);
  const auto add = [&](HostTensor& x, std::int64_t b, std::int64_t n, std::int64_t h,
                       std::int64_t c, double value) {
    const std::int64_t i = ((b * s.N + n) * x.extent(2) + h) * x.extent(3) + c;
    x.set(i, x.at(i) + value);
  };
  for (std::int64_t b = 0; b < s.B; ++b)
    for (std::int64_t h = 0; h < s.H; ++h)
      for (std::int64_t i = 0; i < s.N; ++i) {
        const std::int64_t g = h * s.G / s.H;
        std::vector<double> scores(static_cast<std::size_t>(s.N),
                                   -std::numeric_limits<double>::infinity());
        double top = scores.empty() ? 0 : scores.front(), sum = 0, delta = 0;
        for (std::int64_t j = 0; j < s.N; ++j) {
          if (problem.mask.causal && j > i) continue;
          double score = 0;
          for (std::int64_t c = 0; c < s.D; ++c)
            score += at(inputs.q, b, i, h, c) * at(inputs.k, b, j, g, c);
          scores[static_cast<std::size_t>(j)] = problem.scale * score;
          top = std::max(top, problem.scale * score);
        }
        for (const double score : scores) sum += std::exp(score - top);
        for (std::int64_t j = 0; j < s.N; ++j) {
          const double p = std::exp(scores[static_cast<std::size_t>(j)] - top);
          for (std::int64_t c = 0; c < s.E; ++c)
            add(result.out, b, i, h, c,
                rounded(p, problem.dtype, bits) * at(inputs.v, b, j, g, c) / sum);
        }
        result.lse.set((b * s.H + h) * s.N + i, top + std::log(sum));
        for (std::int64_t c = 0; c < s.E; ++c)
          delta +=
              at(inputs.d_out, b, i, h, c) * rounded(at(result.out, b, i, h, c), problem.dtype, 0);
        for (std::int64_t j = 0; j < s.N; ++j) {
          const double p = std::exp(scores[static_cast<std::size_t>(j)] - top) / sum;
          if (p == 0) continue;
          double d_p = 0;
          for (std::int64_t c = 0; c < s.E; ++c) {
            d_p += at(inputs.d_out, b, i, h, c) * at(inputs.v, b, j, g, c);
            add(result.d_v, b, j, g, c,
                rounded(p, problem.dtype, bits) * at(inputs.d_out, b, i, h, c));
          }
          const double d_s = problem.scale * rounded(p * (d_p - delta), problem.dtype, bits);
          for (std::int64_t c = 0; c < s.D; ++c) {
            add(result.d_q, b, i, h, c, d_s * at(inputs.k, b, j, g, c));
            add(result.d_k, b, j, g, c, d_s * at(inputs.q, b, i, h, c));
          }
        }
      }
  for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v})
    result.*x = (result.*x).cast(problem.dtype);
  result.lse = result.lse.cast(DType::kF32);
  return result;
}

// How many of the kProblems pass.
int passed(DType dtype, Operands operands, int bits) {
  Pins pins;
  pins.dtype = dtype;
  pins.segments = false;
  pins.window = 0;
  pins.values = Values::kNormal;
  pins.most_ranks = 1;
  pins.longest = 0;
  int good = 0;
  for (std::uint64_t index = 0; index < kProblems; ++index) {
    find_failure(pins, Family::kSoftmax, 9, index, 0, [&](const sp::Case& drawn) {
      const Inputs inputs = make_inputs(drawn);
      const Oracle oracle(drawn.problem, inputs, false, operands);
      const Verdict verdict = oracle.judge(tensor_core_attention(drawn.problem, inputs, bits), 1);
      good += verdict.passed() ? 1 : 0;
      return false;
    });
  }
  return good;
}

class RoundedOperands : public testing::TestWithParam<DType> {};

TEST_P(RoundedOperands, PassWhereTheyAreDeclared) {
  EXPECT_EQ(passed(GetParam(), Operands::kStorage, 0), kProblems);
}

TEST_P(RoundedOperands, FailWhereTheyAreNot) {
  EXPECT_LT(passed(GetParam(), Operands::kAccumulator, 0), kProblems);
}

TEST_P(RoundedOperands, FailWhenTheyAreCoarserThanStorage) {
  EXPECT_LT(passed(GetParam(), Operands::kStorage, 3), kProblems);
}

INSTANTIATE_TEST_SUITE_P(Types, RoundedOperands, testing::Values(DType::kBF16, DType::kF16));

TEST(RoundedOperandsInSinglePrecision, ChangeNoLimit) {
  EXPECT_LT(passed(DType::kF32, Operands::kStorage, 12), kProblems)
      << "operands of 12 bits were taken for f32";
}

}  // namespace
}  // namespace sp::test
