// Attention backward against two plain loops.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "kernels_cases.hpp"

namespace sp::test {
namespace {

class BackwardTest : public BlockTest {};

TEST_P(BackwardTest, AddsTheGradientsOfPlainLoops) {
  const BlockCase& c = GetParam();
  const BlockOperands operands = draw(c);
  const PlainBlock& plain = operands.plain;
  const PlainForward forward = plain_attention(plain);
  const DType accumulator = accumulator_of(c.dtype);
  const Values d_out = random(forward.out.shape, c.dtype);
  // Of all keys, not of this block: any numbers will do for delta.
  const Values delta = random(forward.lse.shape, accumulator);
  const PlainGradients expected = plain_attention_backward(plain, forward, d_out, delta);

  // Gradients are added to what is there.
  constexpr double kBefore = 0.5;
  const auto before = [&](const Values& like) {
    return put(Values(like.shape, kBefore), accumulator, c.placement);
  };
  const AttentionGradients gradients{before(plain.q), before(plain.k), before(plain.v)};
  kernels_.attention_backward(operands.block(c), put(d_out, c.dtype, c.placement),
                              put(forward.lse, accumulator, c.placement),
                              put(delta, accumulator, c.placement), gradients);

  const double u = unit_roundoff(accumulator);
  const double tokens = static_cast<double>(c.q_tokens.count() * c.H + c.k_tokens.count());
  const double error =
      2 * probability_error(c, forward) + (tokens + static_cast<double>(c.D + c.E)) * u;
  const auto compare = [&](const Tensor& actual, Values want, const Values& terms,
                           const char* what) {
    for (double& value : want.data) value += kBefore;
    expect_within(
        take(actual), want,
        [&](std::size_t i) { return error * terms.data[i] + 8 * u * std::fabs(want.data[i]); },
        what);
  };
  compare(gradients.d_q, expected.d_q, expected.d_q_terms, "d_q");
  compare(gradients.d_k, expected.d_k, expected.d_k_terms, "d_k");
  compare(gradients.d_v, expected.d_v, expected.d_v_terms, "d_v");
}

INSTANTIATE_TEST_SUITE_P(Kernels, BackwardTest, ::testing::ValuesIn(block_cases()),
                         [](const auto& tested) { return tested.param.name; });

using AttentionBackward = KernelsTest;

TEST_F(AttentionBackward, GivesExactlyNothingToRowsThatSawNothing) {
  const DType dtype = DType::kF32;
  const MaskTerms mask{};
  const Tensor x = put(random({70, 1, 2, 8}, dtype), dtype);
  const Tensor lse = put(Values({70, 1, 2, 1}, -std::numeric_limits<double>::infinity()), dtype);
  const Tensor delta = put(Values({70, 1, 2, 1}), dtype);
  const Tensor gradient = put(Values({70, 1, 2, 8}, 1), dtype);
  kernels_.attention_backward({x, x, x, run(0, 70), run(0, 70), mask, 1}, x, lse, delta,
                              {gradient, gradient, gradient});
  expect_bitwise(take(gradient), Values({70, 1, 2, 8}, 1), "gradient");
}

TEST_F(AttentionBackward, OfBlocksAddsUpToThatOfTheWhole) {
  const DType dtype = DType::kF64;
  const MaskTerms mask{{true, 0}, {}};
  const Tensor q = put(random({150, 1, 2, 8}, dtype), dtype);
  const Tensor k = put(random({150, 1, 2, 8}, dtype), dtype);
  const Tensor d_out = put(random({150, 1, 2, 8}, dtype), dtype);
  const Partial result{poisoned({150, 1, 2, 8}, dtype), poisoned({150, 1, 2, 1}, dtype)};
  const Tensor delta = poisoned({150, 1, 2, 1}, dtype);
  const Tokens tokens = run(0, 150);
  kernels_.attention({q, k, k, tokens, tokens, mask, 1}, result);
  kernels_.attention_delta(delta, d_out, result.out);

  const auto zeros = [&] { return put(Values({150, 1, 2, 8}), dtype); };
  const AttentionGradients whole{zeros(), zeros(), zeros()}, blocks{zeros(), zeros(), zeros()};
  kernels_.attention_backward({q, k, k, tokens, tokens, mask, 1}, d_out, result.lse, delta, whole);
  for (const auto& [begin, end] : {std::pair{0, 41}, {41, 97}, {97, 150}}) {
    kernels_.attention_backward(
        {q, k.rows(begin, end), k.rows(begin, end), tokens, tokens.slice(begin, end), mask, 1},
        d_out, result.lse, delta,
        {blocks.d_q, blocks.d_k.rows(begin, end), blocks.d_v.rows(begin, end)});
  }
  expect_within(take(blocks.d_q), take(whole.d_q), 1e-13, "d_q");
  expect_within(take(blocks.d_k), take(whole.d_k), 1e-13, "d_k");
  expect_within(take(blocks.d_v), take(whole.d_v), 1e-13, "d_v");
}

}  // namespace
}  // namespace sp::test
