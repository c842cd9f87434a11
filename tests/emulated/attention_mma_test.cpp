// Attention on emulated tensor cores: against plain loops in double within the roundings that the
// kernels promise and no others, and bit for bit where the answer is exact.
//
// Limits: a probability is rounded to the storage type once (u relative, and half of the smallest
// f16 absolute), a gradient of a score likewise; everything else is f32.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/attention_mma.hpp"

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
constexpr double kBefore = 0.5;  // what the gradients are added to

// Attention of plain values on a GPU.
class DeviceAttention {
 public:
  DeviceAttention(GpuFixture& gpu, const BlockCase& c, const PlainBlock& plain)
      : gpu_(gpu),
        tables_(gpu.gpu()),
        case_(c),
        mask_{c.band, {}},
        q_(put(plain.q)),
        k_(put(plain.k)),
        v_(put(plain.v)),
        scale_(plain.scale) {
    if (c.segment_length == 0) return;
    constexpr std::int64_t kPositions = 400;  // more than any case reaches
    std::vector<std::int32_t> ids;
    for (std::int64_t b = 0; b < c.B; ++b) {
      for (std::int64_t i = 0; i < kPositions; ++i) ids.push_back(segment_of(c, b, i));
    }
    mask_.segments = gpu_.put_ids(c.B, kPositions, ids);
  }

  AttentionBlock block() const {
    return {q_, k_, v_, case_.q_tokens, case_.k_tokens, mask_, scale_};
  }

  struct Forward {
    Values out, lse;
  };
  Forward forward(DType out_type) {
    const Partial result{
        gpu_.poisoned({case_.q_tokens.count(), case_.B, case_.H, case_.E}, out_type,
                      case_.placement),
        gpu_.poisoned({case_.q_tokens.count(), case_.B, case_.H, 1}, DType::kF32, case_.placement)};
    EXPECT_TRUE(SP_GPU::attention_mma_serves(block()));
    SP_GPU::attention_mma_forward(gpu_.gpu(), tables_, block(), result);
    return {gpu_.take(result.out), gpu_.take(result.lse)};
  }

  struct Backward {
    Values d_q, d_k, d_v;
  };
  Backward backward(const Values& d_out, const Values& lse, const Values& delta) {
    const auto before = [&](const Tensor& like) {
      return gpu_.put(Values(like.shape(), kBefore), DType::kF32, case_.placement);
    };
    const AttentionGradients gradients{before(q_), before(k_), before(v_)};
    SP_GPU::attention_mma_backward(gpu_.gpu(), tables_, block(), put(d_out),
                                   gpu_.put(lse, DType::kF32, case_.placement),
                                   gpu_.put(delta, DType::kF32, case_.placement), gradients);
    return {gpu_.take(gradients.d_q), gpu_.take(gradients.d_k), gpu_.take(gradients.d_v)};
  }

 private:
  Tensor put(const Values& values) { return gpu_.put(values, case_.dtype, case_.placement); }

  GpuFixture& gpu_;
  SP_GPU::TokenTables tables_;
  const BlockCase& case_;
  MaskTerms mask_;
  const Tensor q_, k_, v_;
  const double scale_;
};

// How far rounding p and ds once may move every element of the results.
struct RoundingLimits {
  Values out, d_q, d_k, d_v;
};
RoundingLimits rounding_limits(const PlainBlock& block, const PlainForward& forward,
                               const Values& d_out, const Values& delta, DType dtype) {
  const double u = unit_roundoff(dtype), least = dtype == DType::kF16 ? 0x1p-25 : 0;
  const auto [n, B, H, D] = block.q.shape;
  const std::int64_t m = block.k.shape[0], G = block.k.shape[2], E = block.v.shape[3];
  RoundingLimits limits{Values(forward.out.shape), Values(block.q.shape), Values(block.k.shape),
                        Values(block.v.shape)};
  for (std::int64_t flat = 0; flat < n * B * H * m; ++flat) {
    const std::int64_t i = flat / (B * H * m), b = flat / (H * m) % B, h = flat / m % H;
    const std::int64_t j = flat % m, g = h / (H / G);
    if (forward.scores.at(i, b, h, j) == -kInfinity) continue;
    const double p = forward.probabilities.at(i, b, h, j);
    double dp = 0;
    for (std::int64_t e = 0; e < E; ++e) dp += d_out.at(i, b, h, e) * block.v.at(j, b, g, e);
    const double p_limit = u * p + least;
    const double ds_limit = block.scale * (u * p * std::fabs(dp - delta.at(i, b, h, 0)) + least);
    for (std::int64_t e = 0; e < E; ++e) {
      limits.out.at(i, b, h, e) += p_limit * std::fabs(block.v.at(j, b, g, e));
      limits.d_v.at(j, b, g, e) += p_limit * std::fabs(d_out.at(i, b, h, e));
    }
    for (std::int64_t d = 0; d < D; ++d) {
      limits.d_q.at(i, b, h, d) += ds_limit * std::fabs(block.k.at(j, b, g, d));
      limits.d_k.at(j, b, g, d) += ds_limit * std::fabs(block.q.at(i, b, h, d));
    }
  }
  return limits;
}

class EmulatedAttentionMma : public BlockTest {
 protected:
  GpuFixture gpu_;
};

TEST_P(EmulatedAttentionMma, RoundsProbabilitiesAndNothingElse) {
  const BlockCase& c = GetParam();
  const PlainBlock plain = draw(c).plain;
  const PlainForward expected = plain_attention(plain);
  DeviceAttention device(gpu_, c, plain);
  const Values no_d_out(expected.out.shape), no_delta(expected.lse.shape);
  const RoundingLimits limits = rounding_limits(plain, expected, no_d_out, no_delta, c.dtype);
  const double keys = static_cast<double>(c.k_tokens.count());
  const double u = unit_roundoff(DType::kF32), v = plain.v.largest();
  const double p_error =
      2 * (static_cast<double>(c.D) + 8) * u * (1 + expected.largest_score) + (keys + 4) * u;
  for (const DType out_type : {DType::kF32, c.dtype}) {
    const auto [out, lse] = device.forward(out_type);
    expect_within(
        out, expected.out,
        [&](std::size_t i) {
          const double f32 = limits.out.data[i] + p_error * v;
          return f32 + unit_roundoff(out_type) * (std::fabs(expected.out.data[i]) + f32) + 0x1p-25;
        },
        "out");
    expect_within(lse, expected.lse, p_error, "lse");
  }
}

TEST_P(EmulatedAttentionMma, AddsGradientsWithTwoRoundings) {
  const BlockCase& c = GetParam();
  const PlainBlock plain = draw(c).plain;
  const PlainForward forward = plain_attention(plain);
  const Values d_out = random(forward.out.shape, c.dtype);
  const Values delta = random(forward.lse.shape, DType::kF32);  // of all keys: any will do
  const PlainGradients expected = plain_attention_backward(plain, forward, d_out, delta);
  const RoundingLimits limits = rounding_limits(plain, forward, d_out, delta, c.dtype);
  DeviceAttention device(gpu_, c, plain);
  const auto [d_q, d_k, d_v] = device.backward(d_out, forward.lse, delta);

  const double u = unit_roundoff(DType::kF32);
  const double tokens = static_cast<double>(c.q_tokens.count() * c.H + c.k_tokens.count());
  const double p_error = 2 * (static_cast<double>(c.D) + 8) * u * (1 + forward.largest_score) +
                         (tokens + static_cast<double>(c.D + c.E)) * u;
  const auto compare = [&](const Values& actual, Values want, const Values& terms,
                           const Values& limit, const char* what) {
    for (double& value : want.data) value += kBefore;
    expect_within(
        actual, want,
        [&](std::size_t i) {
          return limit.data[i] + p_error * terms.data[i] + 8 * u * std::fabs(want.data[i]);
        },
        what);
  };
  compare(d_q, expected.d_q, expected.d_q_terms, limits.d_q, "d_q");
  compare(d_k, expected.d_k, expected.d_k_terms, limits.d_k, "d_k");
  compare(d_v, expected.d_v, expected.d_v_terms, limits.d_v, "d_v");
}

// The cases of the CPU's kernels, and the head sizes around the widths of tiles.
std::vector<BlockCase> mma_cases() {
  std::vector<BlockCase> cases;
  for (BlockCase c : block_cases()) {
    if (c.name.starts_with("grouped_")) continue;  // the same shape in other types
    cases.push_back(c);
  }
  constexpr std::int64_t kSizes[][2] = {{1, 1},   {3, 5},   {64, 64}, {64, 65},   {80, 72},
                                        {96, 96}, {97, 33}, {1, 128}, {128, 128}, {121, 127}};
  for (const auto& [D, E] : kSizes) {
    cases.push_back({.name = "head_" + std::to_string(D) + "_" + std::to_string(E),
                     .D = D,
                     .E = E,
                     .q_tokens = run(0, 130),
                     .k_tokens = run(0, 65),
                     .band = {true, 0}});
  }
  std::vector<BlockCase> both;
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (BlockCase c : cases) {
      c.name += "_" + std::string(name_of(dtype));
      c.dtype = dtype;
      both.push_back(c);
    }
  }
  return both;
}

INSTANTIATE_TEST_SUITE_P(Mma, EmulatedAttentionMma, ::testing::ValuesIn(mma_cases()),
                         [](const auto& tested) { return tested.param.name; });

// Query i scores 0 with every key but one, where it scores 2^17: every other weight underflows.
struct Dominant {
  static constexpr std::int64_t kTokens = 128, kColumns = 72;
  static std::int64_t key_of(std::int64_t query) { return query * 77 % kTokens; }  // one to one
  BlockCase c{.name = "",
              .D = kTokens,
              .E = kColumns,
              .q_tokens = run(0, kTokens),
              .k_tokens = run(0, kTokens)};
  PlainBlock plain;

  Dominant(DType dtype, const Values& v) {
    c.dtype = dtype;
    plain = {
        Values({kTokens, 1, 1, kTokens}), Values({kTokens, 1, 1, kTokens}), v, {}, {}, {}, 0.125};
    for (std::int64_t i = 0; i < kTokens; ++i) {
      plain.q.at(i, 0, 0, i) = plain.k.at(key_of(i), 0, 0, i) = 1024;
    }
  }
};

class EmulatedAttentionExact : public KernelsTest {};

TEST_F(EmulatedAttentionExact, OneDominantKeyPerQueryGivesItsRowOfVBitForBit) {
  GpuFixture gpu;
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    Dominant dominant(dtype, random({Dominant::kTokens, 1, 1, Dominant::kColumns}, dtype));
    dominant.plain.scale = 0.123;  // whose product with 2^20 rounds
    DeviceAttention device(gpu, dominant.c, dominant.plain);
    const auto [out, lse] = device.forward(DType::kF32);
    for (std::int64_t i = 0; i < Dominant::kTokens; ++i) {
      ASSERT_EQ(lse.at(i, 0, 0, 0), static_cast<double>(0.123f * 0x1p20f));
      for (std::int64_t e = 0; e < Dominant::kColumns; ++e) {
        ASSERT_EQ(out.at(i, 0, 0, e), dominant.plain.v.at(Dominant::key_of(i), 0, 0, e));
      }
    }
  }
}

TEST_F(EmulatedAttentionExact, IntegersGiveExactGradients) {
  GpuFixture gpu;
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const auto integer = [](std::int64_t i, std::int64_t e) {
      return static_cast<double>((i * 5 + e * 3) % 7 - 3);
    };
    const Tensor::Extents shape{Dominant::kTokens, 1, 1, Dominant::kColumns};
    Values v(shape), d_out(shape), delta({Dominant::kTokens, 1, 1, 1});
    for (std::int64_t i = 0; i < Dominant::kTokens; ++i) {
      for (std::int64_t e = 0; e < Dominant::kColumns; ++e) {
        v.at(Dominant::key_of(i), 0, 0, e) = integer(i, e);
        d_out.at(i, 0, 0, e) = integer(e, i);
        delta.at(i, 0, 0, 0) += integer(i, e) * integer(e, i);
      }
      delta.at(i, 0, 0, 0) -= static_cast<double>(i % 9);  // ds = i % 9, times the scale
    }
    const Dominant dominant(dtype, v);
    DeviceAttention device(gpu, dominant.c, dominant.plain);
    const auto [d_q, d_k, d_v] = device.backward(d_out, device.forward(dtype).lse, delta);
    for (std::int64_t i = 0; i < Dominant::kTokens; ++i) {
      const std::int64_t j = Dominant::key_of(i);
      for (std::int64_t d = 0; d < Dominant::kTokens; ++d) {
        const double expected = kBefore + (d == i ? 128.0 * static_cast<double>(i % 9) : 0.0);
        ASSERT_EQ(d_q.at(i, 0, 0, d), expected);
        ASSERT_EQ(d_k.at(j, 0, 0, d), expected);
      }
      for (std::int64_t e = 0; e < Dominant::kColumns; ++e) {
        ASSERT_EQ(d_v.at(j, 0, 0, e), kBefore + d_out.at(i, 0, 0, e));
      }
    }
  }
}

TEST_F(EmulatedAttentionExact, RowsThatSawNothingGiveNothing) {
  GpuFixture gpu;
  const BlockCase c{.name = "",
                    .H = 2,
                    .D = 40,
                    .E = 24,
                    .q_tokens = run(0, 70),
                    .k_tokens = run(0, 70),
                    .dtype = DType::kBF16};
  const PlainBlock plain{random({70, 1, 2, 40}, c.dtype),
                         random({70, 1, 1, 40}, c.dtype),
                         random({70, 1, 1, 24}, c.dtype),
                         {},
                         {},
                         {},
                         1};
  DeviceAttention device(gpu, c, plain);
  const auto [d_q, d_k, d_v] =
      device.backward(random({70, 1, 2, 24}, c.dtype), Values({70, 1, 2, 1}, -kInfinity),
                      random({70, 1, 2, 1}, DType::kF32));
  expect_bitwise(d_q, Values(d_q.shape, kBefore), "d_q");
  expect_bitwise(d_k, Values(d_k.shape, kBefore), "d_k");
  expect_bitwise(d_v, Values(d_v.shape, kBefore), "d_v");
}

#ifdef SP_EMULATOR
// On the GPU with the least shared memory. ldmatrix and cp.async move 16 bytes per lane, 512 per
// request: 4 wavefronts. One conflict in twenty would show, as few requests are smaller.
class EmulatedAttentionResources : public KernelsTest {
 protected:
  EmulatedAttentionResources() { emulator::configure({.model = "L20"}); }
  ~EmulatedAttentionResources() override { emulator::configure({}); }
};

TEST_F(EmulatedAttentionResources, SmallSharedMemoryIsEnoughAndItsBanksDoNotConflict) {
  for (const std::int64_t size : {64, 96, 128}) {
    GpuFixture gpu;
    const BlockCase c{.name = "",
                      .D = size,
                      .E = size,
                      .q_tokens = run(0, 130),
                      .k_tokens = run(0, 130),
                      .band = {true, 0},
                      .dtype = DType::kBF16};
    const auto values = [&] { return random({130, 1, 1, size}, c.dtype); };
    const PlainBlock plain{values(), values(), values(), {}, {}, {}, 0.25};
    DeviceAttention device(gpu, c, plain);
    emulator::count_accesses(true);
    const auto forward = device.forward(c.dtype);
    device.backward(values(), forward.lse, random({130, 1, 1, 1}, DType::kF32));
    emulator::count_accesses(false);
    int kernels = 0;
    for (const emulator::KernelCounts& counts : emulator::take_counts()) {
      if (!counts.kernel.starts_with("attention_")) continue;
      ++kernels;
      EXPECT_GT(counts.shared_requests, 1000);
      EXPECT_LE(counts.shared_wavefronts, 4 * counts.shared_requests)
          << counts.kernel << " with heads of " << size;
      RecordProperty(counts.kernel + "_" + std::to_string(size),
                     std::to_string(counts.shared_requests) + " requests, " +
                         std::to_string(counts.shared_wavefronts) + " wavefronts");
    }
    EXPECT_EQ(kernels, 3);
  }
}
#endif

}  // namespace
}  // namespace sp::test
