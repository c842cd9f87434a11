// The left product of linear attention on the GPU against plain loops, for every layout of tokens.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "tests/emulated/gpu_fixture.hpp"
#include "tests/unit/kernels_cases.hpp"

namespace sp::test {
namespace {

struct LeftCase {
  BlockCase block;
  double decay;  // log decay of head 0; of head h times (h + 1)
};

std::int32_t alternating(const BlockCase& c, std::int64_t b, std::int64_t position) {
  return segment_of(c, b, position) % 2;
}

// Documents are runs of equal ids: a change anywhere between hides.
bool left_sees(const BlockCase& c, std::int64_t b, std::int64_t query, std::int64_t key) {
  if (!case_sees(c, b, query, query) || (c.band.causal && query < key)) return false;
  if (c.band.window > 0 && std::abs(query - key) >= c.band.window) return false;
  return c.segment_length == 0 || segment_of(c, b, query) == segment_of(c, b, key);
}

std::vector<LeftCase> left_cases() {
  std::vector<BlockCase> blocks;
  for (const BlockCase& c : block_cases()) {
    if (c.dtype != DType::kF64) blocks.push_back(c);
  }
  const Tokens whole = run(0, 150);
  blocks.push_back({.name = "several_tiles_of_channels",
                    .D = 130,
                    .E = 200,
                    .q_tokens = whole,
                    .k_tokens = whole,
                    .band = {true, 0}});
  blocks.push_back({.name = "two_strides", .q_tokens = run(1, 70, 3), .k_tokens = run(0, 99, 2)});
  blocks.push_back({.name = "documents_in_stripes",
                    .B = 2,
                    .q_tokens = run(1, 99, 3),
                    .k_tokens = run(0, 140, 2),
                    .segment_length = 30});
  std::vector<LeftCase> cases;
  for (const BlockCase& block : blocks) {
    for (const double decay : {0.0, -0.1, -1e4}) {
      LeftCase c{block, decay};
      c.block.name += decay == 0 ? "" : decay < -1 ? "_strong_decay" : "_decay";
      cases.push_back(c);
    }
  }
  return cases;
}

class EmulatedLeftProduct : public KernelsTest, public ::testing::WithParamInterface<LeftCase> {
 protected:
  GpuFixture gpu_;
};

TEST_P(EmulatedLeftProduct, MatchesPlainLoops) {
  const BlockCase& c = GetParam().block;
  constexpr double kScale = 0.37, kBefore = 0.5;
  const std::int64_t n = c.q_tokens.count(), m = c.k_tokens.count();
  const Values q = random({n, c.B, c.H, c.D}, c.dtype), k = random({m, c.B, c.G, c.D}, c.dtype),
               v = random({m, c.B, c.G, c.E}, c.dtype);
  Values log_decay({1, 1, c.H, 1});
  for (std::int64_t h = 0; h < c.H; ++h) {
    log_decay.at(0, 0, h, 0) = static_cast<float>(GetParam().decay * static_cast<double>(h + 1));
  }
  Values sums({n, c.B, c.H, c.E}, kBefore), terms = sums;
  for (std::int64_t flat = 0; flat < n * c.B * c.H * m; ++flat) {
    const std::int64_t i = flat / (c.B * c.H * m), b = flat / (c.H * m) % c.B;
    const std::int64_t h = flat / m % c.H, j = flat % m, g = h / (c.H / c.G);
    const std::int64_t query = c.q_tokens.position(i), key = c.k_tokens.position(j);
    if (!left_sees(c, b, query, key)) continue;
    const double exponent = log_decay.at(0, 0, h, 0) * static_cast<double>(std::abs(query - key));
    double score = 0, score_terms = 0;
    for (std::int64_t d = 0; d < c.D; ++d) {
      const double term = kScale * std::exp(exponent) * q.at(i, b, h, d) * k.at(j, b, g, d);
      score += term;
      score_terms += std::fabs(term) * (1 - exponent);  // the exponent is rounded too
    }
    for (std::int64_t e = 0; e < c.E; ++e) {
      sums.at(i, b, h, e) += score * v.at(j, b, g, e);
      terms.at(i, b, h, e) += score_terms * std::fabs(v.at(j, b, g, e));
    }
  }

  MaskTerms mask{c.band, {}};
  if (c.segment_length > 0) {
    constexpr std::int64_t kPositions = 400;
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < c.B * kPositions; ++i) {
      ids.push_back(alternating(c, i / kPositions, i % kPositions));
    }
    mask.segments = gpu_.put_ids(c.B, kPositions, ids);
  }
  LinearTerms linear{.module = GetParam().decay == 0 ? Module::kBasic : Module::kLightning};
  if (GetParam().decay != 0) linear.log_decay = gpu_.put(log_decay, DType::kF32, c.placement);
  const AttentionBlock block{gpu_.put(q, c.dtype, c.placement),
                             gpu_.put(k, c.dtype, c.placement),
                             gpu_.put(v, c.dtype, c.placement),
                             c.q_tokens,
                             c.k_tokens,
                             mask,
                             kScale};
  const Tensor actual = gpu_.put(Values(sums.shape, kBefore), DType::kF32, c.placement);
  gpu_.kernels().linear_block(block, linear, actual);
  // One rounding per sum over channels and tokens, and a few for decay and scale.
  const double error = static_cast<double>(c.D + m + 16) * 0x1p-24;
  expect_within(
      gpu_.take(actual), sums, [&](std::size_t i) { return error * terms.data[i]; }, "sums");
}

INSTANTIATE_TEST_SUITE_P(Kernels, EmulatedLeftProduct, ::testing::ValuesIn(left_cases()),
                         [](const auto& tested) { return tested.param.block.name; });

}  // namespace
}  // namespace sp::test
