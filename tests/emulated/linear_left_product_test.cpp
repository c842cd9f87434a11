// The left product of linear attention on the GPU against plain loops, for every layout of tokens.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "tests/emulated/left_cases.hpp"

namespace sp::test {
namespace {

// Documents are runs of equal ids: a change anywhere between hides.
bool left_sees(const BlockCase& c, std::int64_t b, std::int64_t query, std::int64_t key) {
  if (!case_sees(c, b, query, query) || (c.band.causal && query < key)) return false;
  if (c.band.window > 0 && std::abs(query - key) >= c.band.window) return false;
  return c.segment_length == 0 || segment_of(c, b, query) == segment_of(c, b, key);
}

class EmulatedLeftProduct : public LeftTest {};

TEST_P(EmulatedLeftProduct, MatchesPlainLoops) {
  const BlockCase& c = GetParam().block;
  const std::int64_t n = c.q_tokens.count(), m = c.k_tokens.count();
  const Values q = random({n, c.B, c.H, c.D}, c.dtype), k = random({m, c.B, c.G, c.D}, c.dtype),
               v = random({m, c.B, c.G, c.E}, c.dtype);
  const Values log_decay = log_decays();
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

  const MaskTerms terms_of_mask = mask();
  LinearTerms linear{.module = GetParam().decay == 0 ? Module::kBasic : Module::kLightning};
  if (GetParam().decay != 0) linear.log_decay = gpu_.put(log_decay, DType::kF32, c.placement);
  const AttentionBlock block{gpu_.put(q, c.dtype, c.placement),
                             gpu_.put(k, c.dtype, c.placement),
                             gpu_.put(v, c.dtype, c.placement),
                             c.q_tokens,
                             c.k_tokens,
                             terms_of_mask,
                             kScale};
  const Tensor actual = holding(sums);
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
