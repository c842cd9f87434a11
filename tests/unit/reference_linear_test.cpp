// Identities that linear attention must satisfy whatever its text.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "reference/linear_attention.hpp"
#include "tests/unit/reference_linear_cases.hpp"

namespace sp::test {
namespace {

constexpr std::uint64_t kSeeds = 40;
// Of the largest element of a tensor; sums of at most 24 terms over 55 features are 1e3 u.
constexpr double kRounding = 1e-13;

Outputs run(const Case& c) { return reference::linear_attention(c.problem, c.inputs); }

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

void for_each_case(auto&& f) {
  for (const Module module : kModules) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Case c = linear_case(seed, module);
      SCOPED_TRACE(name(c, seed));
      f(c, seed);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

// Every token a document of its own: what remains is what a token gives to itself.
Mask alone(const Shape& s, bool causal) {
  Mask mask{.causal = causal, .window = 0, .segment_ids = {}};
  for (std::int64_t t = 0; t < s.B * s.N; ++t)
    mask.segment_ids.push_back(static_cast<std::int32_t>(t));
  return mask;
}

TEST(ReferenceLinear, IsLinearInTheValues) {
  for_each_case([](Case c, std::uint64_t seed) {
    const Outputs first = run(c);
    const HostTensor v = c.inputs.v;
    c.inputs.v = Draw(seed + 1000).normal(DType::kF64, v.shape());
    const Outputs second = run(c);
    c.inputs.v = mapped(v, [&](std::int64_t n) { return 3 * v.at(n) - 2 * c.inputs.v.at(n); });
    const Outputs both = run(c);
    const HostTensor expected = mapped(
        first.out, [&](std::int64_t n) { return 3 * first.out.at(n) - 2 * second.out.at(n); });
    ASSERT_TRUE(difference(both.out, expected) <=
                kRounding * conditioning(c) * std::max(1.0, largest(expected)));
  });
}

TEST(ReferenceLinear, ConstantValuesGiveConstantOutputWhereNormalised) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    Case c = linear_case(seed, Module::kBased);
    SCOPED_TRACE(name(c, seed));
    c.problem.epsilon = 0;
    c.inputs.v = mapped(c.inputs.v, [](std::int64_t) { return 0.7; });
    const Outputs result = run(c);
    const double expected = c.problem.mask.window > 0 ? 1.4 : 0.7;  // the window adds its own 0.7
    ASSERT_TRUE(difference(result.out, mapped(result.out, [&](std::int64_t) {
                             return expected;
                           })) <= kRounding);
    ASSERT_TRUE(largest(result.d_q) <= kRounding * largest(result.d_v));
    ASSERT_TRUE(largest(result.d_k) <= kRounding * largest(result.d_v));
  }
}

TEST(ReferenceLinear, CausalRowsBeforeAChangedTokenKeepTheirBits) {
  for_each_case([](Case c, std::uint64_t seed) {
    c.problem.mask.causal = true;
    const std::int64_t B = c.problem.shape.B, N = c.problem.shape.N;
    const Outputs before = run(c);
    const std::int64_t changed = Draw(seed).integer(0, N - 1);
    for (const auto tensor : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::log_decay}) {
      HostTensor& x = c.inputs.*tensor;
      if (x.shape().size() < 4) continue;  // absent, or of all tokens
      const std::int64_t width = x.extent(2) * x.extent(3);
      for (std::int64_t b = 0; b < B; ++b)
        for (std::int64_t n = 0; n < width; ++n)
          x.set((b * N + changed) * width + n, -5 + std::sin(static_cast<double>(n)));
    }
    const Outputs after = run(c);
    const std::vector<std::int64_t> prefix = range(0, changed);
    ASSERT_TRUE(same_bits(take(after.out, 1, prefix), take(before.out, 1, prefix)));
    ASSERT_TRUE(same_bits(take(after.d_q, 1, prefix), take(before.d_q, 1, prefix)));
    ASSERT_FALSE(same_bits(after.out, before.out));
  });
}

TEST(ReferenceLinear, PackedDocumentsHaveTheBitsOfSeparateOnes) {
  for_each_case([](Case packed, std::uint64_t seed) {
    const std::int64_t N = packed.problem.shape.N, cut = Draw(seed).integer(0, N);
    packed.problem.mask.segment_ids.clear();
    for (std::int64_t t = 0; t < packed.problem.shape.B * N; ++t)
      packed.problem.mask.segment_ids.push_back(t % N < cut ? 3 : -1);
    const Outputs together = run(packed);
    for (const auto& tokens : {range(0, cut), range(cut, N)}) {
      Case one = packed;
      one.problem.shape.N = std::ssize(tokens);
      one.problem.mask.segment_ids.clear();
      for (const auto x : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out})
        one.inputs.*x = take(packed.inputs.*x, 1, tokens);
      const bool gates = packed.problem.module == Module::kGla;
      if (gates) one.inputs.log_decay = take(packed.inputs.log_decay, 1, tokens);
      const Outputs apart = run(one);
      for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v})
        ASSERT_TRUE(same_bits(apart.*x, take(together.*x, 1, tokens)));
      ASSERT_TRUE(!gates || same_bits(apart.d_log_decay, take(together.d_log_decay, 1, tokens)));
    }
  });
}

TEST(ReferenceLinear, AnIdThatReturnsBeginsAnotherDocument) {
  for_each_case([](Case c, std::uint64_t) {
    if (c.problem.mask.window > 0) return;  // softmax attention compares ids for equality
    std::vector<std::int32_t>& ids = c.problem.mask.segment_ids;
    ids.clear();
    std::vector<std::int32_t> renamed;
    for (std::int64_t t = 0; t < c.problem.shape.B * c.problem.shape.N; ++t) {
      ids.push_back(t / 3 % 2 == 0 ? 7 : 8);
      renamed.push_back(static_cast<std::int32_t>(t / 3));
    }
    const Outputs result = run(c);
    ids = renamed;
    ASSERT_TRUE(same_bits(result, run(c)));
  });
}

TEST(ReferenceLinear, GroupedHeadsEqualRepeatedKeyHeads) {
  for_each_case([](const Case& grouped, std::uint64_t) {
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
        double total = 0;
        for (std::int64_t h = n / size % G * (H / G); h < (n / size % G + 1) * (H / G); ++h)
          total += (expected.*x).at((n / (G * size) * H + h) * size + n % size);
        sum.set(n, total);
      }
      expected.*x = sum;
    }
    const Outputs result = run(grouped);
    ASSERT_TRUE(same_bits(result.out, expected.out));
    ASSERT_TRUE(same_bits(result.d_q, expected.d_q));
    ASSERT_TRUE(same_bits(result.d_log_decay, expected.d_log_decay));
    ASSERT_TRUE(relative_difference(result, expected) <= kRounding);
  });
}

TEST(ReferenceLinear, DecayOfZeroHasTheBitsOfBasicLinearAttention) {
  for (const Module module : {Module::kLightning, Module::kRetention, Module::kGla}) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      Case c = linear_case(seed, module);
      SCOPED_TRACE(name(c, seed));
      c.inputs.log_decay = mapped(c.inputs.log_decay, [](std::int64_t) { return 0.0; });
      Outputs result = run(c);
      result.d_log_decay = {};
      c.problem.module = Module::kBasic;
      c.inputs.log_decay = {};
      ASSERT_TRUE(same_bits(result, run(c)));
    }
  }
}

TEST(ReferenceLinear, DecayThatUnderflowsLeavesTheOwnTokenAlone) {
  for (const Module module : {Module::kLightning, Module::kRetention, Module::kGla}) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      Case c = linear_case(seed, module);
      SCOPED_TRACE(name(c, seed));
      c.inputs.log_decay = mapped(c.inputs.log_decay, [](std::int64_t) { return -1000.0; });
      const Outputs result = run(c);
      c.problem.mask = alone(c.problem.shape, c.problem.mask.causal);
      const Outputs own = run(c);
      ASSERT_TRUE(relative_difference(result, own) == 0);
      ASSERT_TRUE(largest(result.d_log_decay) == 0);
    }
  }
}

// The problem with its tokens in reverse. Between two tokens lies the decay of the later one, so a
// decay moves one token further than its neighbours.
Case reversed(const Case& c) {
  const std::int64_t B = c.problem.shape.B, N = c.problem.shape.N;
  std::vector<std::int64_t> order = range(0, N);
  std::reverse(order.begin(), order.end());
  Case r = c;
  for (const auto x : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out})
    r.inputs.*x = take(c.inputs.*x, 1, order);
  for (std::size_t t = 0; t < c.problem.mask.segment_ids.size(); ++t) {
    const std::int64_t b = static_cast<std::int64_t>(t) / N, n = static_cast<std::int64_t>(t) % N;
    r.problem.mask.segment_ids.data()[t] = c.problem.mask.segment_ids.data()[b * N + N - 1 - n];
  }
  if (c.problem.module != Module::kGla || B * N == 0) return r;
  std::vector<std::int64_t> borders{0};  // the first token's decay reaches nothing
  for (std::int64_t n = 1; n < N; ++n) borders.push_back(N - n);
  r.inputs.log_decay = take(c.inputs.log_decay, 1, borders);
  return r;
}

TEST(ReferenceLinear, BidirectionalIsForthAndBackWithoutTheOwnTermTwice) {
  for (const Module module : kModules) {
    if (is_normalised(module)) continue;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      Case c = linear_case(seed, module);
      c.problem.mask.causal = false;
      SCOPED_TRACE(name(c, seed));
      const std::int64_t N = c.problem.shape.N;
      const Outputs both = run(c);
      c.problem.mask.causal = true;
      const Outputs forth = run(c), back = run(reversed(c));
      c.problem.mask = alone(c.problem.shape, true);
      const Outputs own = run(c);
      const std::vector<std::int64_t> tokens = range(0, N);
      const std::vector<std::int64_t> order(tokens.rbegin(), tokens.rend());
      for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v}) {
        const HostTensor turned = take(back.*x, 1, order);
        const HostTensor expected = mapped(both.*x, [&](std::int64_t n) {
          return (forth.*x).at(n) + turned.at(n) - (own.*x).at(n);
        });
        ASSERT_TRUE(difference(both.*x, expected) <= kRounding * std::max(1.0, largest(expected)));
      }
      if (decay_of(module) == Decay::kNone) continue;
      HostTensor turned = back.d_log_decay;
      if (module == Module::kGla) {
        std::vector<std::int64_t> borders{0};
        for (std::int64_t n = 1; n < N; ++n) borders.push_back(N - n);
        turned = take(turned, 1, borders);
      }
      const HostTensor expected =
          mapped(turned, [&](std::int64_t n) { return forth.d_log_decay.at(n) + turned.at(n); });
      ASSERT_TRUE(difference(both.d_log_decay, expected) <=
                  kRounding * std::max(1.0, largest(expected)));
    }
  }
}

TEST(ReferenceLinear, WindowOfBasedAddsSoftmaxAttention) {
  // A window of one token adds its own value; its gradient goes to that value alone.
  Case c = linear_case(4, Module::kBased);
  c.problem.mask.causal = true;
  c.problem.shape.G = c.problem.shape.H = 2;
  Draw draw(4);
  c.problem.mask.segment_ids.clear();
  c.inputs = draw.inputs(c.problem);
  c.problem.mask.window = 0;
  const Outputs without = run(c);
  c.problem.mask.window = 1;
  const Outputs with = run(c);
  const auto sum = [](const HostTensor& a, const HostTensor& b) {
    return mapped(a, [&](std::int64_t n) { return a.at(n) + b.at(n); });
  };
  EXPECT_TRUE(difference(with.out, sum(without.out, c.inputs.v)) == 0);
  EXPECT_TRUE(difference(with.d_v, sum(without.d_v, c.inputs.d_out)) == 0);
  EXPECT_TRUE(difference(with.d_q, without.d_q) <= kRounding * largest(with.d_q));
}

TEST(ReferenceLinear, WidensEveryStorageTypeExactly) {
  for (const Module module : kModules) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (std::uint64_t seed = 0; seed < 6; ++seed) {
        Case c = linear_case(seed, module, dtype);
        SCOPED_TRACE(name(c, seed));
        ASSERT_NO_THROW(validate(c.problem, c.inputs));
        const Outputs stored = run(c);
        c.problem.dtype = DType::kF64;
        for (const auto x : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out, &Inputs::log_decay,
                             &Inputs::gamma, &Inputs::beta})
          if (!(c.inputs.*x).absent()) c.inputs.*x = (c.inputs.*x).cast(DType::kF64);
        ASSERT_TRUE(same_bits(stored, run(c)));
      }
    }
  }
}

}  // namespace
}  // namespace sp::test
