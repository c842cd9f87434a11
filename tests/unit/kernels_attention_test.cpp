// Attention forward against two plain loops, and where no tolerance is needed, bit for bit.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "kernels_cases.hpp"

namespace sp::test {
namespace {

TEST_P(BlockTest, AttentionAgreesWithPlainLoops) {
  const BlockCase& c = GetParam();
  const BlockOperands operands = draw(c);
  const PlainForward expected = plain_attention(operands.plain);
  const DType accumulator = accumulator_of(c.dtype);
  for (const DType out_type : {accumulator, c.dtype}) {
    const Partial result{poisoned(expected.out.shape, out_type, c.placement),
                         poisoned(expected.lse.shape, accumulator, c.placement)};
    kernels_.attention(operands.block(c), result);

    // A row of out is a convex combination of rows of v.
    const double keys = static_cast<double>(c.k_tokens.count());
    const double p_error =
        2 * probability_error(c, expected) + (keys + 4) * unit_roundoff(accumulator);
    const double v = operands.plain.v.largest();
    expect_within(take(result.out), expected.out, v * (p_error + unit_roundoff(out_type)), "out");
    expect_within(take(result.lse), expected.lse, p_error, "lse");
  }
}

TEST_P(BlockTest, AttentionIsReproducibleBitForBit) {
  const BlockCase& c = GetParam();
  const BlockOperands operands = draw(c);
  const std::int64_t n = c.q_tokens.count();
  const auto run_once = [&](CpuKernels& kernels) {
    const Partial result{poisoned({n, c.B, c.H, c.E}, c.dtype),
                         poisoned({n, c.B, c.H, 1}, accumulator_of(c.dtype))};
    kernels.attention(operands.block(c), result);
    return std::pair(take(result.out), take(result.lse));
  };
  const auto [out, lse] = run_once(kernels_);
  const auto [out_warm, lse_warm] = run_once(kernels_);  // scratch holds other numbers now
  expect_bitwise(out_warm, out, "out");
  expect_bitwise(lse_warm, lse, "lse");
}

INSTANTIATE_TEST_SUITE_P(Kernels, BlockTest, ::testing::ValuesIn(block_cases()),
                         [](const auto& tested) { return tested.param.name; });

using Attention = KernelsTest;

// Query i scores 0 with every key but its own, where it scores 2^20: every other weight underflows.
TEST_F(Attention, WithOneDominantKeyPerQueryReturnsARowOfVBitForBit) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    constexpr std::int64_t kTokens = 200, kColumns = 70, kDepth = 200;
    Values q({kTokens, 1, 1, kDepth}), k({kTokens, 1, 1, kDepth});
    const Values v = random({kTokens, 1, 1, kColumns}, dtype);
    for (std::int64_t i = 0; i < kTokens; ++i) {
      q.at(i, 0, 0, i) = 1024;
      k.at(i * 77 % kTokens, 0, 0, i) = 1024;  // 77 and 200 share no factor
    }
    const MaskTerms mask{};
    const Partial result{poisoned({kTokens, 1, 1, kColumns}, dtype),
                         poisoned({kTokens, 1, 1, 1}, accumulator_of(dtype))};
    kernels_.attention({put(q, dtype), put(k, dtype), put(v, dtype), run(0, kTokens),
                        run(0, kTokens), mask, 0.123},
                       result);
    const Values out = take(result.out);
    for (std::int64_t i = 0; i < kTokens; ++i) {
      for (std::int64_t e = 0; e < kColumns; ++e) {
        ASSERT_EQ(out.at(i, 0, 0, e), v.at(i * 77 % kTokens, 0, 0, e)) << name_of(dtype);
      }
    }
  }
}

TEST_F(Attention, OfRowsThatSeeNothingIsZeroWithLogSumExpMinusInfinity) {
  const MaskTerms mask{{true, 0}, {}};
  const Tokens queries({{0, 1, 10}, {90, 1, 10}});  // the first run sees no key
  const Partial result{poisoned({20, 1, 1, 4}, DType::kBF16), poisoned({20, 1, 1, 1}, DType::kF32)};
  const Tensor q = put(random({20, 1, 1, 8}, DType::kBF16), DType::kBF16);
  const Tensor k = put(random({30, 1, 1, 8}, DType::kBF16), DType::kBF16);
  const Tensor v = put(Values({30, 1, 1, 4}, 1), DType::kBF16);
  kernels_.attention({q, k, v, queries, run(50, 30), mask, 1}, result);
  for (std::int64_t i = 0; i < 20; ++i) {
    const double lse = take(result.lse).at(i, 0, 0, 0);
    EXPECT_EQ(take(result.out).at(i, 0, 0, 0), i < 10 ? 0 : 1);
    if (i < 10) {
      EXPECT_EQ(lse, -std::numeric_limits<double>::infinity());
    } else {
      EXPECT_TRUE(std::isfinite(lse));
    }
  }
}

TEST_F(Attention, CarriesNaNFromAnOperandToTheResult) {
  Values q = random({70, 1, 1, 8}, DType::kF32);
  q.at(66, 0, 0, 3) = std::numeric_limits<double>::quiet_NaN();
  const Tensor k = put(random({90, 1, 1, 8}, DType::kF32), DType::kF32);
  const MaskTerms mask{};
  const Partial result{poisoned({70, 1, 1, 8}, DType::kF32), poisoned({70, 1, 1, 1}, DType::kF32)};
  kernels_.attention({put(q, DType::kF32), k, k, run(0, 70), run(0, 90), mask, 1}, result);
  for (std::int64_t i = 0; i < 70; ++i) {
    EXPECT_EQ(std::isnan(take(result.out).at(i, 0, 0, 0)), i == 66);
    EXPECT_EQ(std::isnan(take(result.lse).at(i, 0, 0, 0)), i == 66);
  }
}

}  // namespace
}  // namespace sp::test
