// The steps of linear attention backward one by one: device code, so on the emulator only.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/linear_backward.hpp"
#include "tests/emulated/linear_gradients.hpp"

namespace sp::test {
namespace {

using EmulatedLinearSpans = GpuLinearGradientTest;

// Chunks with more states than scratch are cut into spans: here of one tile each.
TEST_P(EmulatedLinearSpans, SpansOfTilesChangeNoBit) {
  const LinearCase& c = GetParam();
  const LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  if (o.q.elements() == 0 || o.v.elements() == 0) return;
  const LinearGradients whole = gradients(c), cut = gradients(c);
  const LinearResults shapes = plain_linear(c, host.plain);
  const Tensor after = empty(c, shapes.after.value), cut_after = empty(c, shapes.after.value);
  const Tensor d_before = empty(c, shapes.after.value), cut_d_before = empty(c, shapes.after.value);
  gpu_.kernels().linear_d_q(o.block(), o.before, o.d_sums, whole, after);
  gpu_.kernels().linear_d_kv(o.block(), o.d_after, o.d_sums, whole, d_before);

  using namespace SP_GPU;  // NOLINT
  const LinearBlock block = o.block();
  const BackwardChunk chunk(gpu_.gpu(), block, o.d_sums, state_heads_of(c), width_of(c));
  const VectorGradients d_q(gpu_.gpu(), o.terms, o.q, cut.d_q),
      d_k(gpu_.gpu(), o.terms, o.k, cut.d_k);
  const auto terms = view<float>(cut.decay_terms);
  int spans = 0;
  sweep(
      chunk, Direction::kForward, o.before, cut_after, true,
      [&](const TileStates& states, const Span& span) {
        ++spans;
        add_d_q(chunk,
                {.target = d_q.target(), .decay_terms = terms, .states = states, .span = span});
      },
      1);
  EXPECT_EQ(spans, tiles_of(c.n));
  sweep(
      chunk, Direction::kBackward, o.d_after, cut_d_before, true,
      [&](const TileStates& states, const Span& span) {
        add_d_k(chunk,
                {.target = d_k.target(), .decay_terms = terms, .states = states, .span = span});
        add_d_v(
            chunk,
            {.target = view<float>(cut.d_v), .decay_terms = {}, .states = states, .span = span});
      },
      1);
  d_q.finish(cut.d_gamma, cut.d_beta);
  d_k.finish(cut.d_gamma, cut.d_beta);
  expect_bitwise(gpu_.take(cut_after), gpu_.take(after), "after");
  expect_bitwise(gpu_.take(cut_d_before), gpu_.take(d_before), "d_before");
  expect_bitwise(gpu_.take(cut.d_q), gpu_.take(whole.d_q), "d_q");
  expect_bitwise(gpu_.take(cut.d_k), gpu_.take(whole.d_k), "d_k");
  expect_bitwise(gpu_.take(cut.d_v), gpu_.take(whole.d_v), "d_v");
  if (decay_of(c.module) == Decay::kNone) return;
  expect_bitwise(gpu_.take(cut.decay_terms), gpu_.take(whole.decay_terms), "decay_terms");
}

INSTANTIATE_TEST_SUITE_P(Kernels, EmulatedLinearSpans, ::testing::ValuesIn(linear_gradient_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sp::test
