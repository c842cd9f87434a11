// Linear attention backward against the recurrence against time.
// SPDX-License-Identifier: Apache-2.0
#include "kernels_linear_cases.hpp"

namespace sp::test {
namespace {

class LinearBackward : public LinearTest {
 protected:
  // Everything that gradients are added to, but for decay terms, which start from 0.
  LinearGradients holding(const LinearCase& c, const LinearOperands& o, double value) {
    LinearGradients gradients{filled(c, o.plain.q, value),
                              filled(c, o.plain.k, value),
                              filled(c, o.plain.v, value),
                              {},
                              {},
                              {}};
    if (decay_of(c.module) != Decay::kNone) {
      const std::int64_t columns = c.module == Module::kGla ? c.D : 1;
      gradients.decay_terms = filled(c, Values({c.n, c.B, c.H, columns}), 0);
    }
    gradients.d_gamma = filled(c, Values({1, 1, 1, c.D}), value);
    gradients.d_beta = filled(c, Values({1, 1, 1, c.D}), value);
    return gradients;
  }

  void compare_all(const LinearCase& c, const LinearGradients& gradients,
                   const LinearResults& expected) {
    compare(c, gradients.d_q, expected.d_q, "d_q", kBefore);
    compare(c, gradients.d_k, expected.d_k, "d_k", kBefore);
    compare(c, gradients.d_v, expected.d_v, "d_v", kBefore);
    if (c.module != Module::kRebased) return;
    compare(c, gradients.d_gamma, expected.d_gamma, "d_gamma", kBefore);
    compare(c, gradients.d_beta, expected.d_beta, "d_beta", kBefore);
  }

  void compare_decay(const LinearCase& c, const LinearOperands& o, const Tensor& terms,
                     const Tensor& after, const LinearResults& expected) {
    if (decay_of(c.module) == Decay::kNone) return;
    const Tensor result = c.module == Module::kGla ? terms : fresh(c, expected.d_log_decay.value);
    kernels_.linear_d_decay(o.block(), terms, after, o.d_after, result);
    compare(c, result, expected.d_log_decay, "d_log_decay");
  }
};

TEST_P(LinearBackward, MatchesTheRecurrence) {
  const LinearCase& c = GetParam();
  const LinearOperands o = draw(c);
  const LinearResults expected = plain_linear(c, o.plain);
  const LinearGradients gradients = holding(c, o, kBefore);
  const Tensor after = fresh(c, expected.after.value);
  const Tensor d_before = fresh(c, expected.d_before.value);
  kernels_.linear_d_q(o.block(), o.before, o.d_sums, gradients, after);
  kernels_.linear_d_kv(o.block(), o.d_after, o.d_sums, gradients, d_before);
  compare_all(c, gradients, expected);
  compare(c, after, expected.after, "after");
  compare(c, d_before, expected.d_before, "d_before");
  compare_decay(c, o, gradients.decay_terms, after, expected);
}

TEST_P(LinearBackward, IntraAndInterAddUp) {
  const LinearCase& c = GetParam();
  if (!c.before) return;
  const LinearOperands o = draw(c);
  const LinearResults expected = plain_linear(c, o.plain);
  const LinearGradients gradients = holding(c, o, kBefore);
  const Tensor after = fresh(c, expected.after.value);
  kernels_.linear_d_q(o.block(), o.before, o.d_sums, gradients, after);
  kernels_.linear_d_kv(o.block(), {}, o.d_sums, gradients, {});
  kernels_.linear_d_kv_inter(o.keys(), o.d_after, gradients);
  compare_all(c, gradients, expected);
  compare_decay(c, o, gradients.decay_terms, after, expected);
}

TEST_P(LinearBackward, GradientOfTheStateBefore) {
  const LinearCase& c = GetParam();
  LinearOperands o = draw(c);
  o.plain.d_after = {};
  const LinearResults expected = plain_linear(c, o.plain);
  const Tensor d_state = fresh(c, expected.d_before.value);
  kernels_.linear_d_state(o.queries(), o.d_sums, d_state);
  compare(c, d_state, expected.d_before, "d_state");
}

TEST_P(LinearBackward, WithoutAMaskEveryTokenSeesTheState) {
  LinearCase c = GetParam();
  if (decay_of(c.module) != Decay::kNone || c.document > 0) return;
  c.causal = false;
  c.first = 0;
  LinearOperands o = draw(c);
  o.plain.d_after = {};
  const LinearResults expected = plain_linear(c, o.plain);
  const Tensor d_state = fresh(c, expected.d_before.value);
  kernels_.linear_d_state(o.queries(), o.d_sums, d_state);
  compare(c, d_state, expected.d_before, "d_state");
}

INSTANTIATE_TEST_SUITE_P(Kernels, LinearBackward, ::testing::ValuesIn(linear_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sp::test
