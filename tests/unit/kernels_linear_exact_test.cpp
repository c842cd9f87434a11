// Small integers without rounding: the size of sub-chunks cannot be seen, and a decay of 1 is none.
// SPDX-License-Identifier: Apache-2.0
#include "kernels_linear_cases.hpp"

namespace sp::test {
namespace {

class LinearExact : public LinearTest {
 protected:
  // Integers of at most 2: no sum of products exceeds 2^24.
  Values integers(Tensor::Extents shape) {
    Values values = random(shape, DType::kF64, 2.49);
    for (double& value : values.data) value = std::round(value);
    return values;
  }
};

std::vector<LinearCase> exact_cases() {
  std::vector<LinearCase> cases;
  for (const Module module :
       {Module::kBasic, Module::kLightning, Module::kRetention, Module::kGla}) {
    for (const std::int64_t chunk : {1, 5, 16, 33, 64, 100, 200}) {
      cases.push_back({.name = fmt::format("{}_chunk{}", name_of(module), chunk),
                       .module = module,
                       .n = 130,
                       .first = 2,
                       .H = 2,
                       .G = 2,
                       .D = 8,
                       .E = 8,
                       .chunk = chunk,
                       .document = 90});
    }
  }
  return cases;
}

TEST_P(LinearExact, EqualsTheRecurrenceWithoutDecayBitForBit) {
  const LinearCase& c = GetParam();
  LinearOperands o = draw(c);
  LinearInputs& in = o.plain;
  for (Values* values : {&in.q, &in.k, &in.v, &in.d_sums, &in.before, &in.d_after}) {
    *values = integers(values->shape);
  }
  for (double& value : in.log_decay.data) value = 0;
  in.scale = o.terms.scale = 2;
  LinearCase basic = c;
  basic.module = Module::kBasic;
  const LinearResults expected = plain_linear(basic, in);

  o.q = put(in.q, c.dtype), o.k = put(in.k, c.dtype), o.v = put(in.v, c.dtype);
  o.d_sums = put(in.d_sums, c.dtype);
  o.before = put(in.before, c.dtype), o.d_after = put(in.d_after, c.dtype);
  if (o.terms.log_decay.defined()) o.terms.log_decay = put(in.log_decay, c.dtype);
  const Tensor sums = fresh(c, expected.sums.value), after = fresh(c, expected.after.value);
  kernels_.linear_forward(o.block(), o.before, sums, after);
  expect_bitwise(take(sums), expected.sums.value, "sums");
  expect_bitwise(take(after), expected.after.value, "after");

  LinearGradients gradients{filled(c, in.q, 0), filled(c, in.k, 0), filled(c, in.v, 0), {}, {}, {}};
  if (o.terms.log_decay.defined()) {
    const std::int64_t columns = c.module == Module::kGla ? c.D : 1;
    gradients.decay_terms = filled(c, Values({c.n, c.B, c.H, columns}), 0);
  }
  const Tensor d_before = fresh(c, expected.d_before.value);
  kernels_.linear_d_q(o.block(), o.before, o.d_sums, gradients, after);
  kernels_.linear_d_kv(o.block(), o.d_after, o.d_sums, gradients, d_before);
  expect_bitwise(take(gradients.d_q), expected.d_q.value, "d_q");
  expect_bitwise(take(gradients.d_k), expected.d_k.value, "d_k");
  expect_bitwise(take(gradients.d_v), expected.d_v.value, "d_v");
  expect_bitwise(take(d_before), expected.d_before.value, "d_before");
}

INSTANTIATE_TEST_SUITE_P(Kernels, LinearExact, ::testing::ValuesIn(exact_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sp::test
