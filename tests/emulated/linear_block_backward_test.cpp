// The left product of linear attention backward on the GPU against plain loops, for every layout of
// tokens.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "tests/emulated/left_cases.hpp"

namespace sp::test {
namespace {

// A gradient and the sum of the absolute values of its terms.
struct Sums {
  Values value, terms;
  explicit Sums(Tensor::Extents shape) : value(shape, kBefore), terms(shape, kBefore) {}
  void add(std::int64_t i, std::int64_t b, std::int64_t h, std::int64_t d, double x, double bound) {
    value.at(i, b, h, d) += x;
    terms.at(i, b, h, d) += std::fabs(bound);
  }
};

struct Operands {
  Values q, k, v, d_out, log_decay;
};

struct Expected {
  Sums d_q, d_k, d_v, d_log_decay;
  explicit Expected(const Operands& x)
      : d_q(x.q.shape), d_k(x.k.shape), d_v(x.v.shape), d_log_decay(x.log_decay.shape) {}
};

// <x_i, y_j> and the sum of its absolute terms.
struct Product {
  double value = 0, terms = 0;
  void add(double x) {
    value += x;
    terms += std::fabs(x);
  }
};

Expected plain_gradients(const BlockCase& c, const Operands& x) {
  Expected result(x);
  const std::int64_t n = c.q_tokens.count(), m = c.k_tokens.count();
  for (std::int64_t flat = 0; flat < n * c.B * c.H * m; ++flat) {
    const std::int64_t i = flat / (c.B * c.H * m), b = flat / (c.H * m) % c.B;
    const std::int64_t h = flat / m % c.H, j = flat % m, g = h / (c.H / c.G);
    const std::int64_t query = c.q_tokens.position(i), key = c.k_tokens.position(j);
    if (!case_sees(c, b, query, key)) continue;
    const auto distance = static_cast<double>(std::abs(query - key));
    const double weight = kScale * std::exp(x.log_decay.at(0, 0, h, 0) * distance);
    Product score, gradient;
    for (std::int64_t d = 0; d < c.D; ++d) score.add(x.q.at(i, b, h, d) * x.k.at(j, b, g, d));
    for (std::int64_t e = 0; e < c.E; ++e) {
      const double d_out = x.d_out.at(i, b, h, e);
      gradient.add(d_out * x.v.at(j, b, g, e));
      result.d_v.add(j, b, g, e, weight * score.value * d_out, weight * score.terms * d_out);
    }
    for (std::int64_t d = 0; d < c.D; ++d) {
      const double own = weight * gradient.value, bound = weight * gradient.terms;
      const double q = x.q.at(i, b, h, d), k = x.k.at(j, b, g, d);
      result.d_q.add(i, b, h, d, own * k, bound * k);
      result.d_k.add(j, b, g, d, own * q, bound * q);
    }
    result.d_log_decay.add(0, 0, h, 0, distance * weight * score.value * gradient.value,
                           distance * weight * score.terms * gradient.terms);
  }
  return result;
}

class EmulatedLeftProductBackward : public LeftTest {};

TEST_P(EmulatedLeftProductBackward, MatchesPlainLoops) {
  const BlockCase& c = GetParam().block;
  const bool decays = GetParam().decay != 0;
  const std::int64_t n = c.q_tokens.count(), m = c.k_tokens.count();
  const Operands x{random({n, c.B, c.H, c.D}, c.dtype), random({m, c.B, c.G, c.D}, c.dtype),
                   random({m, c.B, c.G, c.E}, c.dtype), random({n, c.B, c.H, c.E}, c.dtype),
                   log_decays()};
  const Expected expected = plain_gradients(c, x);

  const MaskTerms terms_of_mask = mask();
  const auto operand = [&](const Values& values) { return gpu_.put(values, c.dtype, c.placement); };
  LinearTerms terms{.module = decays ? Module::kRetention : Module::kBasic};
  if (decays) terms.log_decay = gpu_.put(x.log_decay, DType::kF32, c.placement);
  const AttentionBlock block{operand(x.q), operand(x.k),  operand(x.v), c.q_tokens,
                             c.k_tokens,   terms_of_mask, kScale};
  const AttentionGradients actual{holding(x.q), holding(x.k), holding(x.v)};
  const Tensor d_log_decay = decays ? holding(x.log_decay) : Tensor();
  gpu_.kernels().linear_block_backward(block, terms, operand(x.d_out), actual, d_log_decay);

  // One rounding per sum over channels, values and tokens, and a few for decay and scale.
  const double error = static_cast<double>(c.D + c.E + n * (c.H / c.G) + m + 16) * 0x1p-24;
  const auto expect_near = [&](const Tensor& tensor, const Sums& sums, const char* what) {
    expect_within(
        gpu_.take(tensor), sums.value, [&](std::size_t i) { return error * sums.terms.data[i]; },
        what);
  };
  expect_near(actual.d_q, expected.d_q, "d_q");
  expect_near(actual.d_k, expected.d_k, "d_k");
  expect_near(actual.d_v, expected.d_v, "d_v");
  if (decays) expect_near(d_log_decay, expected.d_log_decay, "d_log_decay");
}

INSTANTIATE_TEST_SUITE_P(Kernels, EmulatedLeftProductBackward, ::testing::ValuesIn(left_cases()),
                         [](const auto& tested) { return tested.param.block.name; });

}  // namespace
}  // namespace sp::test
