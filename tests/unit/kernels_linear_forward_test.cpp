// Linear attention forward against the recurrence over tokens.
// SPDX-License-Identifier: Apache-2.0
#include "kernels_linear_cases.hpp"

namespace sp::test {
namespace {

class LinearForward : public LinearTest {};

TEST_P(LinearForward, MatchesTheRecurrence) {
  const LinearCase& c = GetParam();
  const LinearOperands o = draw(c);
  const LinearResults expected = plain_linear(c, o.plain);
  const Tensor sums = fresh(c, expected.sums.value), after = fresh(c, expected.after.value);
  kernels_.linear_forward(o.block(), o.before, sums, after);
  compare(c, sums, expected.sums, "sums");
  compare(c, after, expected.after, "after");

  const Tensor without = fresh(c, expected.sums.value);
  kernels_.linear_forward(o.block(), o.before, without, {});
  expect_bitwise(take(without), take(sums), "sums without a state after");
}

TEST_P(LinearForward, OwnStateIsThatFromNothing) {
  const LinearCase& c = GetParam();
  LinearOperands o = draw(c);
  o.plain.before = {};
  const LinearResults expected = plain_linear(c, o.plain);
  const Tensor state = fresh(c, expected.after.value);
  kernels_.linear_state(o.keys(), state);
  compare(c, state, expected.after, "state");
  if (c.module != Module::kGla) return;

  Tensor::Extents shape = state.shape();
  ++shape[3];
  const Tensor message = poisoned(shape, state.dtype(), c.placement);
  kernels_.linear_state(o.keys(), message);
  expect_bitwise(take(message.slice(3, 0, c.E)), take(state), "state beside its decay");
  Bounded total({c.D, c.B, c.H, 1});
  for (std::int64_t i = 0; i < c.n; ++i) {
    for (std::int64_t flat = 0; flat < c.B * c.H * c.D; ++flat) {
      const std::int64_t b = flat / (c.H * c.D), h = flat / c.D % c.H, d = flat % c.D;
      total.value.at(d, b, h, 0) += o.plain.log_decay.at(i, b, h, d);
      total.terms.at(d, b, h, 0) -= o.plain.log_decay.at(i, b, h, d);
    }
  }
  compare(c, message.slice(3, c.E, c.E + 1), total, "decay of the chunk");
}

TEST_P(LinearForward, IntraAndInterAddUp) {
  const LinearCase& c = GetParam();
  if (!c.before) return;
  const LinearOperands o = draw(c);
  const LinearResults expected = plain_linear(c, o.plain);
  const Tensor sums = fresh(c, expected.sums.value);
  kernels_.linear_forward(o.block(), {}, sums, {});
  kernels_.linear_inter(o.queries(), o.before, sums);
  compare(c, sums, expected.sums, "sums");
}

TEST_P(LinearForward, AppliesAStateToAllTokensAlike) {
  const LinearCase& c = GetParam();
  if (!c.before || decay_of(c.module) != Decay::kNone) return;
  LinearOperands o = draw(c);
  LinearCase open = c;  // no token begins a document
  open.document = 0;
  open.first = std::max<std::int64_t>(c.first, 1);
  o.plain.k = o.plain.v = {};
  const LinearResults expected = plain_linear(open, o.plain);
  const Tensor sums = filled(c, expected.sums.value, kBefore);
  kernels_.linear_apply(o.queries(), o.before, sums);
  compare(c, sums, expected.sums, "sums", kBefore);

  const LinearGradients gradients{filled(c, o.plain.q, kBefore),
                                  {},
                                  {},
                                  {},
                                  filled(c, Values({1, 1, 1, c.D}), kBefore),
                                  filled(c, Values({1, 1, 1, c.D}), kBefore)};
  kernels_.linear_apply_d_q(o.queries(), o.before, o.d_sums, gradients);
  compare(c, gradients.d_q, expected.d_q, "d_q", kBefore);
  compare(c, gradients.d_gamma, expected.d_gamma, "d_gamma", kBefore);
  compare(c, gradients.d_beta, expected.d_beta, "d_beta", kBefore);
}

INSTANTIATE_TEST_SUITE_P(Kernels, LinearForward, ::testing::ValuesIn(linear_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sp::test
