// Identities that attention must satisfy whatever its text, and the sampled rows of the reference.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "reference/attention.hpp"
#include "reference/problem/error.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp::test {
namespace {

constexpr std::uint64_t kSeeds = 100;
constexpr double kRounding = 1e-13;  // of sums of at most 24 terms near 1 (n u = 3e-15), and slack

Outputs run(const Case& c) { return reference::attention(c.problem, c.inputs); }

// A case of the softmax family; `unmasked` drops its mask.
Case softmax_case(std::uint64_t seed, bool unmasked = false) {
  Draw draw(seed);
  Case c;
  c.problem.shape = draw.shape(24);
  c.problem.dtype = DType::kF64;
  c.problem.scale = default_scale(c.problem.shape);
  if (!unmasked) c.problem.mask = draw.mask(c.problem.shape);
  c.inputs = draw.inputs(c.problem);
  return c;
}

HostTensor mapped(const HostTensor& x, auto&& f) {
  HostTensor y = x;
  for (std::int64_t n = 0; n < x.size(); ++n) y.set(n, f(n));
  return y;
}

std::vector<std::int64_t> range(std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(end - begin));
  std::iota(tokens.begin(), tokens.end(), begin);
  return tokens;
}

TEST(Reference, DifferenceIsNeverBelowALimitWhenSomethingIsNaN) {
  const HostTensor fine(DType::kF64, {2});
  HostTensor broken = fine;
  broken.set(1, std::nan(""));
  EXPECT_FALSE(difference(fine, broken) <= 1e300);
  EXPECT_FALSE(difference(broken, broken) <= 1e300);
  Outputs result, truth;
  result.d_k = broken;
  truth.d_k = fine;
  EXPECT_FALSE(relative_difference(result, truth) <= 1e300);
}

TEST(Reference, ConstantValuesGiveConstantOutput) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case c = softmax_case(seed);
    SCOPED_TRACE(name(c, seed));
    c.inputs.v = mapped(c.inputs.v, [](std::int64_t) { return 0.7; });
    const Outputs result = run(c);
    const HostTensor expected = mapped(result.out, [](std::int64_t) { return 0.7; });
    ASSERT_TRUE(difference(result.out, expected) <= kRounding);
    // The output does not depend on the scores.
    ASSERT_TRUE(largest(result.d_q) <= kRounding);
    ASSERT_TRUE(largest(result.d_k) <= kRounding);
  }
}

TEST(Reference, IsLinearInTheValues) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case c = any_case(seed, DType::kF64);
    SCOPED_TRACE(name(c, seed));
    const Outputs first = run(c);
    const HostTensor v = c.inputs.v;
    c.inputs.v = Draw(seed + 1000).normal(DType::kF64, v.shape());
    const Outputs second = run(c);
    c.inputs.v = mapped(v, [&](std::int64_t n) { return 3 * v.at(n) - 2 * c.inputs.v.at(n); });
    const Outputs both = run(c);
    const HostTensor expected = mapped(
        first.out, [&](std::int64_t n) { return 3 * first.out.at(n) - 2 * second.out.at(n); });
    ASSERT_TRUE(difference(both.out, expected) <= kRounding * std::max(1.0, largest(expected)));
    ASSERT_TRUE(same_bits(both.lse, first.lse));
  }
}

TEST(Reference, OrderOfKeysDoesNotMatterWithoutMask) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case c = softmax_case(seed, true);
    SCOPED_TRACE(name(c, seed));
    Outputs expected = run(c);
    std::vector<std::int64_t> order = range(0, c.problem.shape.N);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    c.inputs.k = take(c.inputs.k, 1, order);
    c.inputs.v = take(c.inputs.v, 1, order);
    expected.d_k = take(expected.d_k, 1, order);
    expected.d_v = take(expected.d_v, 1, order);
    ASSERT_TRUE(relative_difference(run(c), expected) <= kRounding);
  }
}

TEST(Reference, AddingAVectorToAllKeysShiftsOnlyTheLogSumExp) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case c = softmax_case(seed);
    SCOPED_TRACE(name(c, seed));
    const auto [B, N, H, G, D, E] = c.problem.shape;
    Outputs expected = run(c);
    const HostTensor u = Draw(seed + 1000).normal(DType::kF64, {D});
    const HostTensor k = c.inputs.k;
    c.inputs.k = mapped(k, [&, size = D](std::int64_t n) { return k.at(n) + u.at(n % size); });
    for (std::int64_t row = 0; row < B * N * H; ++row) {
      double shift = 0;
      for (std::int64_t d = 0; d < D; ++d) shift += c.inputs.q.at(row * D + d) * u.at(d);
      const std::int64_t b = row / (N * H), i = row / H % N, h = row % H;
      const std::int64_t n = (b * H + h) * N + i;
      expected.lse.set(n, expected.lse.at(n) + c.problem.scale * shift);
    }
    // d_k and d_v are those of the old keys; d_q too, because the softmax derivative sums to 0.
    ASSERT_TRUE(relative_difference(run(c), expected) <= kRounding);
  }
}

TEST(Reference, CausalRowsBeforeAChangedTokenKeepTheirBits) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case c = softmax_case(seed);
    c.problem.mask.causal = true;
    SCOPED_TRACE(name(c, seed));
    const auto [B, N, H, G, D, E] = c.problem.shape;
    const Outputs before = run(c);
    const std::int64_t changed = Draw(seed).integer(0, N - 1);
    for (const auto tensor : {&Inputs::q, &Inputs::k, &Inputs::v}) {
      HostTensor& x = c.inputs.*tensor;
      const std::int64_t width = x.extent(2) * x.extent(3);
      for (std::int64_t b = 0; b < B; ++b)
        for (std::int64_t n = 0; n < width; ++n)
          x.set((b * N + changed) * width + n, 5 + 0.1 * static_cast<double>(n));
    }
    const Outputs after = run(c);
    const std::vector<std::int64_t> prefix = range(0, changed);
    ASSERT_TRUE(same_bits(take(after.out, 1, prefix), take(before.out, 1, prefix)));
    ASSERT_TRUE(same_bits(take(after.lse, 2, prefix), take(before.lse, 2, prefix)));
    ASSERT_TRUE(same_bits(take(after.d_q, 1, prefix), take(before.d_q, 1, prefix)));
    ASSERT_FALSE(same_bits(after.out, before.out));
  }
}

TEST(Reference, PackedDocumentsHaveTheBitsOfSeparateOnes) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case packed = softmax_case(seed);
    const std::int64_t N = packed.problem.shape.N, cut = Draw(seed).integer(0, N);
    packed.problem.mask.segment_ids.clear();
    for (std::int64_t t = 0; t < packed.problem.shape.B * N; ++t)
      packed.problem.mask.segment_ids.push_back(t % N < cut ? 3 : -1);
    SCOPED_TRACE(name(packed, seed) + " cut " + std::to_string(cut));
    const Outputs together = run(packed);
    for (const auto& tokens : {range(0, cut), range(cut, N)}) {
      Case one = packed;
      one.problem.shape.N = std::ssize(tokens);
      one.problem.mask.segment_ids.clear();
      for (const auto x : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out})
        one.inputs.*x = take(packed.inputs.*x, 1, tokens);
      const Outputs alone = run(one);
      ASSERT_TRUE(same_bits(alone.lse, take(together.lse, 2, tokens)));
      for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v})
        ASSERT_TRUE(same_bits(alone.*x, take(together.*x, 1, tokens)));
    }
  }
}

TEST(Reference, GroupedHeadsEqualRepeatedKeyHeads) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Case grouped = softmax_case(seed);
    SCOPED_TRACE(name(grouped, seed));
    const std::int64_t H = grouped.problem.shape.H, G = grouped.problem.shape.G;
    std::vector<std::int64_t> group;
    for (std::int64_t h = 0; h < H; ++h) group.push_back(h / (H / G));
    Case repeated = grouped;
    repeated.problem.shape.G = H;
    repeated.inputs.k = take(grouped.inputs.k, 2, group);
    repeated.inputs.v = take(grouped.inputs.v, 2, group);
    Outputs expected = run(repeated);
    for (const auto x : {&Outputs::d_k, &Outputs::d_v}) {  // the heads of a group add up
      HostTensor sum = take(expected.*x, 2, range(0, G));
      const std::int64_t size = sum.extent(3);
      for (std::int64_t n = 0; n < sum.size(); ++n) {
        const std::int64_t token = n / (G * size), g = n / size % G;
        double total = 0;
        for (std::int64_t h = g * (H / G); h < (g + 1) * (H / G); ++h)
          total += (expected.*x).at((token * H + h) * size + n % size);
        sum.set(n, total);
      }
      expected.*x = sum;
    }
    const Outputs result = run(grouped);
    ASSERT_TRUE(same_bits(result.out, expected.out));
    ASSERT_TRUE(same_bits(result.d_q, expected.d_q));
    ASSERT_TRUE(relative_difference(result, expected) <= kRounding);
  }
}

TEST(Reference, TermsThatHideNothingChangeNothing) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case c = softmax_case(seed, true);
    SCOPED_TRACE(name(c, seed));
    const Outputs expected = run(c);
    c.problem.mask.window = c.problem.shape.N;  // the largest distance is N - 1
    c.problem.mask.segment_ids.assign(
        static_cast<std::size_t>(c.problem.shape.B * c.problem.shape.N), 9);
    ASSERT_TRUE(same_bits(run(c), expected));
  }
}

TEST(Reference, WindowOfOneReturnsTheOwnValue) {
  Case c = softmax_case(5);
  c.problem.mask = {.causal = false, .window = 1, .segment_ids = {}};
  c.problem.shape.G = c.problem.shape.H = 2;
  c.inputs = Draw(5).inputs(c.problem);
  const Outputs result = run(c);
  EXPECT_TRUE(same_bits(result.out, c.inputs.v));
  EXPECT_TRUE(same_bits(result.d_v, c.inputs.d_out));
  EXPECT_TRUE(largest(result.d_q) <= kRounding);
}

TEST(Reference, ProjectionByTheIdentityMatrixIsAttention) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case c = softmax_case(seed, true);
    SCOPED_TRACE(name(c, seed));
    const std::int64_t N = c.problem.shape.N;
    const Outputs expected = run(c);
    c.problem.projected = N;
    HostTensor identity(DType::kF64, {N, N});
    for (std::int64_t t = 0; t < N; ++t) identity.set(t * N + t, 1);
    c.inputs.projection_k = c.inputs.projection_v = identity;
    Outputs result = run(c);
    ASSERT_EQ(result.d_projection_k.shape(), identity.shape());
    result.d_projection_k = result.d_projection_v = {};
    ASSERT_TRUE(relative_difference(result, expected) <= kRounding);
  }
}

TEST(Reference, EveryRowSeesAKeyBecauseATokenSeesItself) {
  // In self-attention no term hides j = i, so fully masked rows arise only inside blocks.
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const Case c = softmax_case(seed);
    SCOPED_TRACE(name(c, seed));
    ASSERT_TRUE(std::isfinite(largest(run(c).lse)));
  }
}

}  // namespace
}  // namespace sp::test
