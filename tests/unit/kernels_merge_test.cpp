// Merge of partial results: identity, commutativity, associativity, extreme log-sum-exps.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "kernels_cases.hpp"

namespace sp::test {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr Tensor::Extents kOut{70, 2, 3, 9};
constexpr Tensor::Extents kRows{70, 2, 3, 1};

struct Both {
  Values out, lse;
};

class MergeTest : public KernelsTest {
 protected:
  Both draw(DType dtype, double lse_magnitude = 3) {
    return {random(kOut, dtype), random(kRows, dtype, lse_magnitude)};
  }

  Both merged(const Both& into, const Both& from, DType dtype, DType from_type,
              Placement placement = Placement::kDense) {
    const Partial target{put(into.out, dtype, placement), put(into.lse, dtype, placement)};
    kernels_.merge(target, {put(from.out, from_type, placement), put(from.lse, dtype)});
    return {take(target.out), take(target.lse)};
  }
  Both merged(const Both& into, const Both& from, DType dtype) {
    return merged(into, from, dtype, dtype);
  }
};

void expect_same(const Both& actual, const Both& expected, double limit) {
  expect_within(actual.out, expected.out, limit, "out");
  expect_within(actual.lse, expected.lse, limit, "lse");
}

TEST_F(MergeTest, WithTheIdentityOnEitherSideLeavesTheOtherBitwiseUnchanged) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    const Both some = draw(dtype, 1e4);
    const Both nothing{Values(kOut, 0), Values(kRows, kNothing)};
    expect_same(merged(some, nothing, dtype), some, 0);
    expect_same(merged(nothing, some, dtype), some, 0);
    expect_same(merged(nothing, nothing, dtype), nothing, 0);
  }
  // Also the sign of zero, and whatever lies in the rows that nobody looked at.
  const Both zeros{Values(kOut, -0.0), Values(kRows, 1)};
  const Both unseen{Values(kOut, std::numeric_limits<double>::quiet_NaN()),
                    Values(kRows, kNothing)};
  for (const Both& kept :
       {merged(zeros, unseen, DType::kF32), merged(unseen, zeros, DType::kF32)}) {
    expect_same(kept, zeros, 0);
    for (const double value : kept.out.data) EXPECT_TRUE(std::signbit(value));
  }
  const Both halves = {random(kOut, DType::kBF16), random(kRows, DType::kF32)};
  const Both nothing{Values(kOut, 0), Values(kRows, kNothing)};
  expect_same(merged(nothing, halves, DType::kF32, DType::kBF16), halves, 0);
}

TEST_F(MergeTest, WeighsRowsByTheirLogSumExp) {
  for (const DType from_type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const Placement placement : {Placement::kDense, Placement::kWindow}) {
      Both into = draw(DType::kF32), from = draw(DType::kF32), expected = into;
      from.out = random(kOut, from_type);
      for (std::size_t row = 0; row < into.lse.data.size(); ++row) {
        const double a = std::exp(into.lse.data[row]), b = std::exp(from.lse.data[row]);
        expected.lse.data[row] = std::log(a + b);
        for (std::size_t e = row * 9; e < (row + 1) * 9; ++e) {
          expected.out.data[e] = (a * into.out.data[e] + b * from.out.data[e]) / (a + b);
        }
      }
      expect_same(merged(into, from, DType::kF32, from_type, placement), expected, 32 * 0x1p-24);
    }
  }
}

TEST_F(MergeTest, IsCommutativeAndAssociativeUpToRounding) {
  const Both a = draw(DType::kF32), b = draw(DType::kF32), c = draw(DType::kF32);
  const auto merge = [&](const Both& x, const Both& y) { return merged(x, y, DType::kF32); };
  expect_same(merge(a, b), merge(b, a), 8 * 0x1p-24);
  expect_same(merge(merge(a, b), c), merge(a, merge(b, c)), 32 * 0x1p-24);
}

TEST_F(MergeTest, OfVeryDifferentRowsTakesTheHeavierOneExactly) {
  Both light = draw(DType::kF32), heavy = draw(DType::kF32);
  for (double& value : light.lse.data) value = -1e4;
  for (double& value : heavy.lse.data) value = 1e4;
  expect_same(merged(light, heavy, DType::kF32), heavy, 0);
  expect_same(merged(heavy, light, DType::kF32), heavy, 0);
}

TEST_F(MergeTest, OfEquallyHugeRowsIsTheirMean) {
  for (const double level : {1e4, -1e4, 3e38}) {
    Both a = draw(DType::kF64), b = draw(DType::kF64), mean = a;
    for (std::size_t i = 0; i < mean.out.data.size(); ++i) {
      mean.out.data[i] = (a.out.data[i] + b.out.data[i]) / 2;
    }
    for (double& value : a.lse.data) value = level;
    b.lse = a.lse;
    mean.lse = Values(kRows, level + std::log(2.0));
    expect_same(merged(a, b, DType::kF64), mean, 4 * 0x1p-53 * (1 + std::fabs(level)));
  }
}

TEST_F(MergeTest, OfPartsOfTheKeysIsAttentionOverAllKeys) {
  const DType dtype = DType::kF32;
  const MaskTerms mask{{true, 90}, {}};
  const Tokens tokens = run(0, 150);
  const Tensor q = put(random({150, 2, 2, 8}, dtype), dtype);
  const Tensor k = put(random({150, 2, 1, 8}, dtype), dtype);
  const auto partial = [&](std::int64_t begin, std::int64_t end) {
    const Partial result{poisoned({150, 2, 2, 8}, dtype), poisoned({150, 2, 2, 1}, dtype)};
    const Tensor keys = k.rows(begin, end);
    kernels_.attention({q, keys, keys, tokens, tokens.slice(begin, end), mask, 1}, result);
    return result;
  };
  const Partial whole = partial(0, 150);
  for (const bool backwards : {false, true}) {
    const Partial sum{put(Values({150, 2, 2, 8}), dtype), poisoned({150, 2, 2, 1}, dtype)};
    kernels_.fill(sum.lse, kNothing);
    for (const std::int64_t part : {0, 1, 2}) {
      const std::int64_t begin = 50 * (backwards ? 2 - part : part);
      kernels_.merge(sum, partial(begin, begin + 50));
    }
    expect_within(take(sum.out), take(whole.out), 64 * 0x1p-24, "out");
    expect_within(take(sum.lse), take(whole.lse), 64 * 0x1p-24, "lse");
  }
}

}  // namespace
}  // namespace sp::test
