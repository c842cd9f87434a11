// Linear attention backward on the GPU against the recurrence against time, in all cases of the
// CPU's kernels and with heads of several tiles.
// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated/linear_gradients.hpp"

namespace sp::test {
namespace {

class GpuLinearBackward : public GpuLinearGradientTest {};

TEST_P(GpuLinearBackward, MatchesTheRecurrence) {
  const LinearCase& c = GetParam();
  const LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  const LinearResults expected = plain_linear(c, host.plain);
  const LinearGradients actual = gradients(c);
  const Tensor after = empty(c, expected.after.value);
  const Tensor d_before = empty(c, expected.d_before.value);
  gpu_.kernels().linear_d_q(o.block(), o.before, o.d_sums, actual, after);
  gpu_.kernels().linear_d_kv(o.block(), o.d_after, o.d_sums, actual, d_before);
  expect_all_near(c, actual, expected);
  expect_near(c, after, expected.after, "after");
  expect_near(c, d_before, expected.d_before, "d_before");
  expect_decay_near(c, o, actual.decay_terms, after, expected);
}

TEST_P(GpuLinearBackward, IntraAndInterAddUp) {
  const LinearCase& c = GetParam();
  if (!c.before) return;
  const LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  const LinearResults expected = plain_linear(c, host.plain);
  const LinearGradients actual = gradients(c);
  const Tensor after = empty(c, expected.after.value);
  gpu_.kernels().linear_d_q(o.block(), o.before, o.d_sums, actual, after);
  gpu_.kernels().linear_d_kv(o.block(), {}, o.d_sums, actual, {});
  gpu_.kernels().linear_d_kv_inter(o.keys(), o.d_after, actual);
  expect_all_near(c, actual, expected);
  expect_decay_near(c, o, actual.decay_terms, after, expected);
}

TEST_P(GpuLinearBackward, StatesThatNobodyWantsChangeNothing) {
  const LinearCase& c = GetParam();
  const LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  const LinearResults expected = plain_linear(c, host.plain);
  const LinearGradients actual = gradients(c);
  gpu_.kernels().linear_d_q(o.block(), o.before, o.d_sums, actual, {});
  gpu_.kernels().linear_d_kv(o.block(), o.d_after, o.d_sums, actual, {});
  expect_all_near(c, actual, expected);
}

TEST_P(GpuLinearBackward, GradientOfTheStateBefore) {
  const LinearCase& c = GetParam();
  LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  host.plain.d_after = {};
  const LinearResults expected = plain_linear(c, host.plain);
  const Tensor d_state = empty(c, expected.d_before.value);
  gpu_.kernels().linear_d_state(o.queries(), o.d_sums, d_state);
  expect_near(c, d_state, expected.d_before, "d_state");
}

TEST_P(GpuLinearBackward, WithoutAMaskEveryTokenSeesTheState) {
  const LinearCase& c = GetParam();
  if (!c.before || decay_of(c.module) != Decay::kNone) return;
  LinearOperands host = draw(c);
  host.terms.causal = false;
  const GpuOperands o = move(c, host);
  LinearCase open = c;  // no token begins a document
  open.document = 0;
  open.first = std::max<std::int64_t>(c.first, 1);
  host.plain.k = host.plain.v = host.plain.d_after = {};
  const LinearResults expected = plain_linear(open, host.plain);
  const Tensor d_state = empty(c, expected.d_before.value);
  gpu_.kernels().linear_d_state(o.queries(), o.d_sums, d_state);
  expect_near(c, d_state, expected.d_before, "d_state");

  const LinearGradients actual = gradients(c);
  gpu_.kernels().linear_apply_d_q(o.queries(), o.before, o.d_sums, actual);
  expect_near(c, actual.d_q, expected.d_q, "d_q", kBefore);
}

// With integers every order of summation gives the same bits, so the GPU equals the CPU.
TEST_P(GpuLinearBackward, IntegersGiveTheCpusBits) {
  LinearCase c = GetParam();
  if (c.module != Module::kBasic) return;
  LinearOperands host = draw(c);
  for (Values* values : {&host.plain.q, &host.plain.k, &host.plain.v, &host.plain.d_sums,
                         &host.plain.before, &host.plain.d_after}) {
    for (double& x : values->data) x = std::round(2 * x);
  }
  host.terms.scale = 2;
  for (const auto& [tensor, values] :
       {std::pair{&host.q, &host.plain.q}, std::pair{&host.k, &host.plain.k},
        std::pair{&host.v, &host.plain.v}, std::pair{&host.d_sums, &host.plain.d_sums},
        std::pair{&host.before, &host.plain.before},
        std::pair{&host.d_after, &host.plain.d_after}}) {
    if (tensor->defined()) *tensor = put(*values, tensor->dtype());
  }
  const GpuOperands o = move(c, host);
  const LinearGradients actual = gradients(c);
  const LinearGradients wanted{filled(c, host.plain.q, kBefore),
                               filled(c, host.plain.k, kBefore),
                               filled(c, host.plain.v, kBefore),
                               {},
                               {},
                               {}};
  gpu_.kernels().linear_d_q(o.block(), o.before, o.d_sums, actual, {});
  gpu_.kernels().linear_d_kv(o.block(), o.d_after, o.d_sums, actual, {});
  kernels_.linear_d_q(host.block(), host.before, host.d_sums, wanted, {});
  kernels_.linear_d_kv(host.block(), host.d_after, host.d_sums, wanted, {});
  expect_bitwise(gpu_.take(actual.d_q), take(wanted.d_q), "d_q");
  expect_bitwise(gpu_.take(actual.d_k), take(wanted.d_k), "d_k");
  expect_bitwise(gpu_.take(actual.d_v), take(wanted.d_v), "d_v");
}

TEST_P(GpuLinearBackward, OutputBackwardEqualsTheCpu) {
  const LinearCase& c = GetParam();
  const std::int64_t W = width_of(c);
  const double epsilon = 0.25;
  const Values sums = random({c.n, c.B, c.H, W}, DType::kF32);
  const Values d_out = random({c.n, c.B, c.H, c.E}, c.dtype);
  const Tensor host = fresh(c, sums), device = empty(c, sums);
  kernels_.linear_output_backward(host, put(d_out, c.dtype), put(sums, DType::kF32), epsilon);
  gpu_.kernels().linear_output_backward(device, gpu_.put(d_out, c.dtype, c.placement),
                                        gpu_.put(sums, DType::kF32, c.placement), epsilon);
  const Values expected = take(host), actual = gpu_.take(device);
  for (std::int64_t row = 0; row < c.n * c.B * c.H; ++row) {
    const auto at = static_cast<std::size_t>(row * W);
    const auto E = static_cast<std::size_t>(c.E);
    double terms = 0;  // of the last column, times the divisor
    for (std::size_t e = 0; e < E; ++e) {
      EXPECT_EQ(actual.data[at + e], expected.data[at + e]);
      terms += std::fabs(actual.data[at + e] * sums.data[at + e]);
    }
    if (W == c.E) continue;
    const double divisor = std::fabs(sums.data[at + E] + epsilon);
    EXPECT_NEAR(actual.data[at + E], expected.data[at + E],
                8 * unit_roundoff(DType::kF32) * terms / divisor);
  }
}

// Terms of real gradients sum up to nothing over a document, so where one begins would not matter.
TEST_P(GpuLinearBackward, DecayOfAnyTermsEqualsTheCpu) {
  const LinearCase& c = GetParam();
  if (decay_of(c.module) == Decay::kNone) return;
  const bool per_channel = c.module == Module::kGla;
  const LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  const Values terms = random({c.n, c.B, c.H, per_channel ? c.D : 1}, DType::kF32);
  const Values after = random({c.D, c.B, c.H, c.E}, DType::kF32);
  const Tensor host_terms = put(terms, DType::kF32), host_after = put(after, DType::kF32);
  const Tensor device_terms = gpu_.put(terms, DType::kF32, c.placement);
  const Tensor device_after = gpu_.put(after, DType::kF32, c.placement);
  const Values like = per_channel ? terms : Values({1, 1, c.H, 1});
  const Tensor expected = fresh(c, like), actual = empty(c, like);
  kernels_.linear_d_decay(host.block(), host_terms, host_after, host.d_after, expected);
  gpu_.kernels().linear_d_decay(o.block(), device_terms, device_after, o.d_after, actual);
  // Both sum in double and round once.
  const Values want = take(expected);
  expect_within(
      gpu_.take(actual), want,
      [&](std::size_t i) {
        return unit_roundoff(DType::kF32) * (2 * std::fabs(want.data[i]) + 1e-6);
      },
      "d_log_decay");
}

INSTANTIATE_TEST_SUITE_P(Kernels, GpuLinearBackward, ::testing::ValuesIn(linear_gradient_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sp::test
