// Score rows: every kernel against its definition, and the score path against the attention path.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "kernels_cases.hpp"

namespace sp::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Scores = KernelsTest;

// Small integers times a power of two: sums are exact in every order and every type.
Values whole_numbers(Tensor::Extents shape, std::int64_t step) {
  Values values(shape);
  for (std::size_t i = 0; i < values.data.size(); ++i) {
    values.data[i] = static_cast<double>(static_cast<std::int64_t>(i) * step % 7 - 3);
  }
  return values;
}

TEST_F(Scores, AreScaledProductsOfRowsInAnyColumnSlice) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    const Values a = whole_numbers({70, 2, 4, 9}, 5), b = whole_numbers({131, 2, 2, 9}, 3);
    const DType accumulator = accumulator_of(dtype);
    const Tensor rows = put(Values({70, 2, 4, 300}, 8), accumulator);
    kernels_.scores(rows.slice(3, 100, 231), put(a, dtype), put(b, dtype), 0.25);
    Values expected({70, 2, 4, 300}, 8);
    for (std::int64_t flat = 0; flat < 70 * 2 * 4 * 131; ++flat) {
      const std::int64_t i = flat / (131 * 8), s = flat / (131 * 4) % 2, h = flat / 131 % 4;
      double sum = 0;
      for (std::int64_t d = 0; d < 9; ++d) {
        sum += a.at(i, s, h, d) * b.at(flat % 131, s, h / 2, d);
      }
      expected.at(i, s, h, 100 + flat % 131) = 0.25 * sum;
    }
    expect_bitwise(take(rows), expected, "scores");
  }
}

TEST_F(Scores, AppliedToRowsAddWeightedSumsInBothDirections) {
  const std::int64_t n = 300, m = 140, E = 70;  // several blocks along every axis
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Values s = whole_numbers({n, 1, 4, m}, 5);
    const Values x = whole_numbers({m, 1, 2, E}, 3), y = whole_numbers({n, 1, 4, E}, 4);
    Values out({n, 1, 4, E}, 0.5), out_transposed({m, 1, 2, E}, 0.5);
    const Tensor sum = put(out, DType::kF32, Placement::kWindow);
    const Tensor sum_transposed = put(out_transposed, DType::kF32, Placement::kWindow);
    const Tensor rows = put(s, DType::kF32, Placement::kWindow);
    kernels_.scores_apply(sum, rows, put(x, dtype));
    kernels_.scores_apply_transposed(sum_transposed, rows, put(y, dtype));
    for (std::int64_t flat = 0; flat < n * 4 * m; ++flat) {
      const std::int64_t i = flat / (4 * m), h = flat / m % 4, j = flat % m;
      for (std::int64_t e = 0; e < E; ++e) {
        out.at(i, 0, h, e) += s.at(i, 0, h, j) * x.at(j, 0, h / 2, e);
        out_transposed.at(j, 0, h / 2, e) += s.at(i, 0, h, j) * y.at(i, 0, h, e);
      }
    }
    expect_bitwise(take(sum), out, "out");
    expect_bitwise(take(sum_transposed), out_transposed, "transposed");
  }
}

class ScoreRows : public BlockTest {};

// The way of Ring Self-Attention through a whole block equals the plain loops, forward and
// backward.
TEST_P(ScoreRows, LeadToTheSameAttentionAsPlainLoops) {
  const BlockCase& c = GetParam();
  const BlockOperands operands = draw(c);
  const PlainBlock& plain = operands.plain;
  PlainForward expected = plain_attention(plain);
  const DType type = accumulator_of(c.dtype);
  const Tensor::Extents shape = expected.probabilities.shape;

  const Tensor rows = poisoned(shape, type, c.placement);
  const Tensor lse = poisoned(expected.lse.shape, type, c.placement);
  kernels_.scores(rows, operands.q, operands.k, plain.scale);
  Values scores = take(rows);
  for (std::size_t i = 0; i < scores.data.size(); ++i) {  // hidden entries were never computed
    if (std::isinf(expected.scores.data[i])) scores.data[i] = kNaN;
  }
  const Tensor probabilities = put(scores, type, c.placement);
  kernels_.scores_softmax(probabilities, lse, c.q_tokens, c.k_tokens, &operands.mask);
  const Tensor out = put(Values(expected.out.shape), type);
  kernels_.scores_apply(out, probabilities, operands.v);

  const double u = unit_roundoff(type);
  const double keys = static_cast<double>(c.k_tokens.count());
  const double error = 2 * probability_error(c, expected) + (keys + 4) * u;
  expect_within(take(lse), expected.lse, error, "lse");
  expect_within(take(out), expected.out, error * plain.v.largest(), "out");
  const Values p = take(probabilities);
  for (std::size_t i = 0; i < p.data.size(); ++i) {
    if (std::isinf(expected.scores.data[i])) {
      ASSERT_EQ(p.data[i], 0);
    }
  }

  const Values d_out = random(expected.out.shape, c.dtype);
  const Tensor d_rows = poisoned(shape, type, c.placement);
  kernels_.scores(d_rows, put(d_out, c.dtype), operands.v, 1);
  Values d_p = take(d_rows);
  Values delta(expected.lse.shape), naive_ds(shape);
  for (std::size_t i = 0; i < d_p.data.size(); ++i) {
    if (p.data[i] == 0) {
      d_p.data[i] = kNaN;
    } else {
      delta.data[i / static_cast<std::size_t>(shape[3])] += p.data[i] * d_p.data[i];
    }
  }
  const Tensor d_scores = put(d_p, type);
  kernels_.scores_softmax_backward(d_scores, probabilities, plain.scale);
  for (std::size_t i = 0; i < d_p.data.size(); ++i) {
    const double row = delta.data[i / static_cast<std::size_t>(shape[3])];
    if (p.data[i] != 0) naive_ds.data[i] = plain.scale * p.data[i] * (d_p.data[i] - row);
  }
  const double d_p_size = static_cast<double>(c.E) * plain.v.largest() * d_out.largest();
  expect_within(take(d_scores), naive_ds, (keys + 8) * u * 2 * d_p_size, "ds");
}

INSTANTIATE_TEST_SUITE_P(Kernels, ScoreRows, ::testing::ValuesIn(block_cases()),
                         [](const auto& tested) { return tested.param.name; });

TEST_F(Scores, WithoutAMaskHideNothing) {
  const Tensor rows = put(Values({5, 1, 1, 67}, 1e4), DType::kF32);
  const Tensor lse = poisoned({5, 1, 1, 1}, DType::kF32);
  kernels_.scores_softmax(rows, lse, {}, {}, nullptr);
  expect_within(take(rows), Values({5, 1, 1, 67}, 1.0 / 67), 0x1p-24, "probabilities");
  expect_within(take(lse), Values({5, 1, 1, 1}, 1e4 + std::log(67.0)), 1e4 * 0x1p-23, "lse");
}

using Projection = KernelsTest;

TEST_F(Projection, AddsWeightedRowsAndItsGradients) {
  const std::int64_t m = 150, K = 70, B = 2, G = 2, D = 9;
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16}) {
    const DType type = accumulator_of(dtype);
    const Values weights = whole_numbers({m, 1, 1, K}, 5), x = whole_numbers({m, B, G, D}, 3);
    const Values d_projected = whole_numbers({K, B, G, D}, 4);
    Values projected({K, B, G, D}, 2), d_x({m, B, G, D}, 2), d_weights({m, 1, 1, K}, 2);
    const Tensor sum = put(projected, type, Placement::kWindow);
    const Tensor d_x_sum = put(d_x, type, Placement::kWindow);
    const Tensor d_weights_sum = put(d_weights, type, Placement::kWindow);
    kernels_.project(sum, put(weights, dtype, Placement::kWindow), put(x, dtype));
    kernels_.project_backward(d_x_sum, d_weights_sum, put(d_projected, type), put(weights, dtype),
                              put(x, dtype));
    for (std::int64_t flat = 0; flat < m * K * B * G; ++flat) {
      const std::int64_t j = flat / (K * B * G), row = flat / (B * G) % K, b = flat / G % B;
      const std::int64_t g = flat % G;
      const double weight = weights.at(j, 0, 0, row);
      for (std::int64_t d = 0; d < D; ++d) {
        projected.at(row, b, g, d) += weight * x.at(j, b, g, d);
        d_x.at(j, b, g, d) += weight * d_projected.at(row, b, g, d);
        d_weights.at(j, 0, 0, row) += d_projected.at(row, b, g, d) * x.at(j, b, g, d);
      }
    }
    expect_bitwise(take(sum), projected, "projected");
    expect_bitwise(take(d_x_sum), d_x, "d_x");
    expect_bitwise(take(d_weights_sum), d_weights, "d_projection");
  }
}

}  // namespace
}  // namespace sp::test
