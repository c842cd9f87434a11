// Attention of a GPU in f32 arithmetic against two plain loops, and where no tolerance is needed,
// bit for bit.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/attention_plain.hpp"

#include <cmath>
#include <limits>

#include "tests/emulated/gpu_fixture.hpp"
#include "tests/unit/kernels_cases.hpp"
#ifdef SP_EMULATOR  // which the GPU's headers say
#include "harness/emulator/emulator.hpp"
#endif

namespace sp::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr DType kF32 = DType::kF32;

// Those of the CPU that have a GPU type, and what only the tiles and slices of a GPU tell apart.
std::vector<BlockCase> gpu_cases() {
  std::vector<BlockCase> cases;
  for (const BlockCase& c : block_cases()) {
    if (c.dtype != DType::kF64) cases.push_back(c);
  }
  const Band causal{true, 0};
  const auto add = [&](BlockCase c) { cases.push_back(std::move(c)); };
  add({.name = "slices", .D = 100, .E = 130, .q_tokens = run(0, 65), .k_tokens = run(0, 100)});
  add({.name = "wide_values", .D = 4, .E = 300, .q_tokens = run(0, 9), .k_tokens = run(0, 70)});
  add({.name = "wide_keys",
       .H = 2,
       .D = 260,
       .E = 8,
       .q_tokens = run(0, 9),
       .k_tokens = run(0, 70),
       .band = causal});
  add({.name = "aligned_slices",
       .H = 2,
       .D = 128,
       .E = 128,
       .q_tokens = run(0, 128),
       .k_tokens = run(0, 128),
       .band = causal});
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    BlockCase c{.name = "wide_" + std::string(name_of(dtype)),
                .B = 2,
                .H = 2,
                .D = 136,
                .E = 72,
                .q_tokens = run(3, 70),
                .k_tokens = run(0, 66),
                .band = causal};
    c.dtype = dtype;
    add(c);
    c.name += "_windows";
    c.placement = Placement::kWindow;
    add(c);
  }
  return cases;
}

class PlainAttentionTest : public BlockTest {
 protected:
  struct OnGpu {
    Tensor q, k, v;
    MaskTerms mask;
  };
  OnGpu twins(const BlockCase& c, const BlockOperands& host) {
    OnGpu result{gpu_.put(host.plain.q, c.dtype, c.placement),
                 gpu_.put(host.plain.k, c.dtype, c.placement),
                 gpu_.put(host.plain.v, c.dtype, c.placement), host.mask};
    result.mask.segments = gpu_.twin(host.mask.segments);
    return result;
  }
  static AttentionBlock block(const BlockCase& c, const OnGpu& x, double scale) {
    return {x.q, x.k, x.v, c.q_tokens, c.k_tokens, x.mask, scale};
  }

  GpuFixture gpu_;
  SP_GPU::TokenTables tables_{gpu_.gpu()};
};

TEST_P(PlainAttentionTest, AgreesWithPlainLoops) {
  const BlockCase& c = GetParam();
  const BlockOperands operands = draw(c);
  const OnGpu device = twins(c, operands);
  const PlainForward expected = plain_attention(operands.plain);
  for (const DType out_type : {kF32, c.dtype}) {
    const Partial result{gpu_.poisoned(expected.out.shape, out_type, c.placement),
                         gpu_.poisoned(expected.lse.shape, kF32, c.placement)};
    attention_plain_forward(gpu_.gpu(), tables_, block(c, device, operands.plain.scale), result);

    // A row of out is a convex combination of rows of v.
    const double keys = static_cast<double>(c.k_tokens.count());
    const double p_error = 2 * probability_error(c, expected) + (keys + 4) * 0x1p-24;
    const double v = operands.plain.v.largest();
    expect_within(gpu_.take(result.out), expected.out, v * (p_error + unit_roundoff(out_type)),
                  "out");
    expect_within(gpu_.take(result.lse), expected.lse, p_error, "lse");
  }
}

TEST_P(PlainAttentionTest, AddsTheGradientsOfPlainLoops) {
  const BlockCase& c = GetParam();
  const BlockOperands operands = draw(c);
  const OnGpu device = twins(c, operands);
  const PlainBlock& plain = operands.plain;
  const PlainForward forward = plain_attention(plain);
  const Values d_out = random(forward.out.shape, c.dtype);
  const Values delta = random(forward.lse.shape, kF32);  // of all keys: any numbers will do
  const PlainGradients expected = plain_attention_backward(plain, forward, d_out, delta);

  constexpr double kBefore = 0.5;  // gradients are added to what is there
  const auto before = [&](const Values& like) {
    return gpu_.put(Values(like.shape, kBefore), kF32, c.placement);
  };
  const AttentionGradients gradients{before(plain.q), before(plain.k), before(plain.v)};
  attention_plain_backward(
      gpu_.gpu(), tables_, block(c, device, plain.scale), gpu_.put(d_out, c.dtype, c.placement),
      gpu_.put(forward.lse, kF32, c.placement), gpu_.put(delta, kF32, c.placement), gradients);

  const double u = 0x1p-24;
  const double tokens = static_cast<double>(c.q_tokens.count() * c.H + c.k_tokens.count());
  const double error =
      2 * probability_error(c, forward) + (tokens + static_cast<double>(c.D + c.E)) * u;
  const auto compare = [&](const Tensor& actual, Values want, const Values& terms,
                           const char* what) {
    for (double& value : want.data) value += kBefore;
    expect_within(
        gpu_.take(actual), want,
        [&](std::size_t i) { return error * terms.data[i] + 8 * u * std::fabs(want.data[i]); },
        what);
  };
  compare(gradients.d_q, expected.d_q, expected.d_q_terms, "d_q");
  compare(gradients.d_k, expected.d_k, expected.d_k_terms, "d_k");
  compare(gradients.d_v, expected.d_v, expected.d_v_terms, "d_v");
}

INSTANTIATE_TEST_SUITE_P(Emulated, PlainAttentionTest, ::testing::ValuesIn(gpu_cases()),
                         [](const auto& tested) { return tested.param.name; });

class PlainAttention : public KernelsTest {
 protected:
  GpuFixture gpu_;
  SP_GPU::TokenTables tables_{gpu_.gpu()};
};

// Query i scores 0 with every key but its own, where it scores 2^20: every other weight underflows.
TEST_F(PlainAttention, WithOneDominantKeyPerQueryReturnsARowOfVBitForBit) {
  for (const DType dtype : {kF32, DType::kBF16, DType::kF16}) {
    constexpr std::int64_t kTokens = 140, kColumns = 70, kDepth = 140;
    Values q({kTokens, 1, 1, kDepth}), k({kTokens, 1, 1, kDepth});
    const Values v = random({kTokens, 1, 1, kColumns}, dtype);
    for (std::int64_t i = 0; i < kTokens; ++i) {
      q.at(i, 0, 0, i) = 1024;
      k.at(i * 73 % kTokens, 0, 0, i) = 1024;  // 73 and 140 share no factor
    }
    const MaskTerms mask{};
    const Partial result{gpu_.poisoned({kTokens, 1, 1, kColumns}, dtype),
                         gpu_.poisoned({kTokens, 1, 1, 1}, kF32)};
    attention_plain_forward(gpu_.gpu(), tables_,
                            {gpu_.put(q, dtype), gpu_.put(k, dtype), gpu_.put(v, dtype),
                             run(0, kTokens), run(0, kTokens), mask, 0.123},
                            result);
    const Values out = gpu_.take(result.out);
    for (std::int64_t i = 0; i < kTokens; ++i) {
      for (std::int64_t e = 0; e < kColumns; ++e) {
        ASSERT_EQ(out.at(i, 0, 0, e), v.at(i * 73 % kTokens, 0, 0, e)) << name_of(dtype);
      }
    }
  }
}

TEST_F(PlainAttention, TakesOperandsOfDifferentTypes) {
  const Values q = random({20, 1, 2, 12}, DType::kBF16), k = random({70, 1, 1, 12}, kF32);
  const Values v = random({70, 1, 1, 5}, DType::kF16);
  const MaskTerms mask{};
  const auto attend = [&](auto put, auto attention, const Partial& result) {
    attention({put(q, DType::kBF16), put(k, kF32), put(v, DType::kF16), run(0, 20), run(0, 70),
               mask, 0.3},
              result);
  };
  const Partial host{poisoned({20, 1, 2, 5}, kF32), poisoned({20, 1, 2, 1}, kF32)};
  const Partial device{gpu_.poisoned({20, 1, 2, 5}, kF32), gpu_.poisoned({20, 1, 2, 1}, kF32)};
  attend([&](const Values& x, DType type) { return put(x, type); },
         [&](const AttentionBlock& b, const Partial& r) { kernels_.attention(b, r); }, host);
  attend([&](const Values& x, DType type) { return gpu_.put(x, type); },
         [&](const AttentionBlock& b, const Partial& r) { gpu_.kernels().attention(b, r); },
         device);
  expect_within(gpu_.take(device.out), take(host.out), 100 * 0x1p-24, "out");
  expect_within(gpu_.take(device.lse), take(host.lse), 100 * 0x1p-24, "lse");
}

TEST_F(PlainAttention, OfRowsThatSeeNothingIsZeroWithLogSumExpMinusInfinity) {
  const MaskTerms mask{{true, 0}, {}};
  const Tokens queries({{0, 1, 10}, {90, 1, 10}});  // the first run sees no key
  const Partial result{gpu_.poisoned({20, 1, 1, 4}, kF32), gpu_.poisoned({20, 1, 1, 1}, kF32)};
  const Tensor q = gpu_.put(random({20, 1, 1, 8}, kF32), kF32);
  const Tensor k = gpu_.put(Values({30, 1, 1, 8}), kF32);  // all weights are 1: sums are exact
  const Tensor v = gpu_.put(Values({30, 1, 1, 4}, 1), kF32);
  gpu_.kernels().attention({q, k, v, queries, run(50, 30), mask, 1}, result);
  const Values out = gpu_.take(result.out), lse = gpu_.take(result.lse);
  for (std::int64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(out.at(i, 0, 0, 0), i < 10 ? 0 : 1);
    EXPECT_EQ(std::isfinite(lse.at(i, 0, 0, 0)), i >= 10);
  }
}

TEST_F(PlainAttention, BackwardGivesExactlyNothingToRowsThatSawNothing) {
  const MaskTerms mask{};
  const Tensor x = gpu_.put(random({70, 1, 2, 8}, kF32), kF32);
  const Tensor lse = gpu_.put(Values({70, 1, 2, 1}, -kInfinity), kF32);
  const Tensor delta = gpu_.put(Values({70, 1, 2, 1}), kF32);
  const auto ones = [&] { return gpu_.put(Values({70, 1, 2, 8}, 1), kF32); };
  const AttentionGradients gradients{ones(), ones(), ones()};
  gpu_.kernels().attention_backward({x, x, x, run(0, 70), run(0, 70), mask, 1}, x, lse, delta,
                                    gradients);
  for (const Tensor& gradient : {gradients.d_q, gradients.d_k, gradients.d_v}) {
    expect_bitwise(gpu_.take(gradient), Values({70, 1, 2, 8}, 1), "gradient");
  }
}

// A tile of keys that does not end with its tensor must not let exp(0 - lse) overflow there.
TEST_F(PlainAttention, BackwardIgnoresWhatLiesBeyondTheKeysWhateverTheLogSumExp) {
  const MaskTerms mask{};
  const Tensor q = gpu_.put(Values({3, 1, 1, 4}, -20), kF32);
  const Tensor k = gpu_.put(Values({5, 1, 1, 4}, 20), kF32);
  const Tensor lse = gpu_.put(Values({3, 1, 1, 1}, -1600 + std::log(5.0)), kF32);
  const Tensor delta = gpu_.put(Values({3, 1, 1, 1}, 0.5), kF32);
  const auto zeros = [&](std::int64_t n) { return gpu_.put(Values({n, 1, 1, 4}), kF32); };
  const AttentionGradients gradients{zeros(3), zeros(5), zeros(5)};
  gpu_.kernels().attention_backward({q, k, k, run(0, 3), run(0, 5), mask, 1}, q, lse, delta,
                                    gradients);
  for (const Tensor& gradient : {gradients.d_q, gradients.d_k, gradients.d_v}) {
    for (const double value : gpu_.take(gradient).data) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST_F(PlainAttention, CarriesNaNFromAnOperandToTheResult) {
  Values q = random({70, 1, 1, 8}, kF32);
  q.at(66, 0, 0, 3) = std::numeric_limits<double>::quiet_NaN();
  const Tensor k = gpu_.put(random({90, 1, 1, 8}, kF32), kF32);
  const MaskTerms mask{};
  const Partial result{gpu_.poisoned({70, 1, 1, 8}, kF32), gpu_.poisoned({70, 1, 1, 1}, kF32)};
  gpu_.kernels().attention({gpu_.put(q, kF32), k, k, run(0, 70), run(0, 90), mask, 1}, result);
  const Values out = gpu_.take(result.out), lse = gpu_.take(result.lse);
  for (std::int64_t i = 0; i < 70; ++i) {
    EXPECT_EQ(std::isnan(out.at(i, 0, 0, 0)), i == 66);
    EXPECT_EQ(std::isnan(lse.at(i, 0, 0, 0)), i == 66);
  }
}

#ifdef SP_EMULATOR
// A request of 16 bytes per lane takes 4 wavefronts at least, one of 4 bytes takes 1. Weights are
// stored once per pair of tiles in forward, stored, loaded and stored again in backward: 16 elements
// by each of 8 warps. Everything else moves 16 bytes.
TEST_F(PlainAttention, MeetsNoBankTwice) {
  const MaskTerms mask{};
  const Tensor x = gpu_.put(random({128, 1, 1, 64}, kF32), kF32);
  const Tensor rows = gpu_.put(Values({128, 1, 1, 1}, 5), kF32);
  const Partial result{gpu_.poisoned({128, 1, 1, 64}, kF32), gpu_.poisoned({128, 1, 1, 1}, kF32)};
  const auto zeros = [&] { return gpu_.put(Values({128, 1, 1, 64}), kF32); };
  const AttentionBlock block{x, x, x, run(0, 128), run(0, 128), mask, 0.125};
  emulator::take_counts();
  emulator::count_accesses(true);
  gpu_.kernels().attention(block, result);
  gpu_.kernels().attention_backward(block, x, rows, rows, {zeros(), zeros(), zeros()});
  gpu_.gpu().synchronize();
  emulator::count_accesses(false);
  int kernels = 0;
  for (const emulator::KernelCounts& counts : emulator::take_counts()) {
    if (counts.shared_requests == 0) continue;
    ++kernels;
    constexpr std::int64_t kPairs = 4, kWeights = 16 * 8 * kPairs;
    const bool forward = counts.kernel == "attention_plain_forward";
    const std::int64_t narrow = forward ? kWeights : 3 * kWeights;
    EXPECT_EQ(counts.shared_wavefronts, 4 * (counts.shared_requests - narrow) + narrow)
        << counts.kernel;
  }
  EXPECT_EQ(kernels, 3);
}
#endif

}  // namespace
}  // namespace sp::test
