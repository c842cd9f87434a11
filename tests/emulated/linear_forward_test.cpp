// Linear attention forward on the GPU against the recurrence over tokens, in all cases of the CPU's
// kernels, and in chunks so long that they are cut into spans.
// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated/linear_operands.hpp"

namespace sp::test {
namespace {

class EmulatedLinear : public GpuLinearTest {};

TEST_P(EmulatedLinear, ForwardMatchesTheRecurrence) {
  const LinearCase& c = GetParam();
  const LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  const LinearResults expected = plain_linear(c, host.plain);
  const Tensor sums = empty(c, expected.sums.value), after = empty(c, expected.after.value);
  gpu_.kernels().linear_forward(o.block(), o.before, sums, after);
  expect_near(c, sums, expected.sums, "sums");
  expect_near(c, after, expected.after, "after");

  const Tensor without = empty(c, expected.sums.value);
  gpu_.kernels().linear_forward(o.block(), o.before, without, {});
  expect_bitwise(gpu_.take(without), gpu_.take(sums), "sums without a state after");
}

TEST_P(EmulatedLinear, OwnStateIsThatFromNothing) {
  const LinearCase& c = GetParam();
  LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  host.plain.before = {};
  const LinearResults expected = plain_linear(c, host.plain);
  const Tensor state = empty(c, expected.after.value);
  gpu_.kernels().linear_state(o.keys(), state);
  expect_near(c, state, expected.after, "state");
  if (c.module != Module::kGla) return;

  Values wider({c.D, c.B, c.H, c.E + 1});
  const Tensor message = empty(c, wider);
  gpu_.kernels().linear_state(o.keys(), message);
  expect_bitwise(gpu_.take(message.slice(3, 0, c.E)), gpu_.take(state), "state beside its decay");
  Bounded total({c.D, c.B, c.H, 1});
  for (std::int64_t i = 0; i < c.n; ++i) {
    for (std::int64_t flat = 0; flat < c.B * c.H * c.D; ++flat) {
      const std::int64_t b = flat / (c.H * c.D), h = flat / c.D % c.H, d = flat % c.D;
      total.value.at(d, b, h, 0) += host.plain.log_decay.at(i, b, h, d);
      total.terms.at(d, b, h, 0) -= host.plain.log_decay.at(i, b, h, d);
    }
  }
  expect_near(c, message.slice(3, c.E, c.E + 1), total, "decay of the chunk");
}

TEST_P(EmulatedLinear, IntraAndInterAddUp) {
  const LinearCase& c = GetParam();
  if (!c.before) return;
  const LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  const LinearResults expected = plain_linear(c, host.plain);
  const Tensor sums = empty(c, expected.sums.value);
  gpu_.kernels().linear_forward(o.block(), {}, sums, {});
  gpu_.kernels().linear_inter(o.queries(), o.before, sums);
  expect_near(c, sums, expected.sums, "sums");
}

TEST_P(EmulatedLinear, AppliesAStateToAllTokensAlike) {
  const LinearCase& c = GetParam();
  if (!c.before || decay_of(c.module) != Decay::kNone) return;
  LinearOperands host = draw(c);
  const GpuOperands o = move(c, host);
  LinearCase open = c;  // no token begins a document
  open.document = 0;
  open.first = std::max<std::int64_t>(c.first, 1);
  host.plain.k = host.plain.v = {};
  const LinearResults expected = plain_linear(open, host.plain);
  constexpr double kHeld = 0.5;
  const Tensor sums = holding(c, expected.sums.value.shape, kHeld);
  gpu_.kernels().linear_apply(o.queries(), o.before, sums);
  expect_near(c, sums, expected.sums, "sums", kHeld);
}

// Those of the CPU's kernels, and head sizes and lengths of several tiles and spans.
std::vector<LinearCase> gpu_cases() {
  std::vector<LinearCase> cases;
  for (const LinearCase& c : linear_cases()) {
    if (c.dtype != DType::kF64) cases.push_back(c);
  }
  const auto add = [&](LinearCase c, const std::string& what) {
    c.name = std::string(name_of(c.module)) + "_" + what;
    cases.push_back(c);
  };
  for (const Module module : kModules) {
    const std::int64_t D = is_normalised(module) ? 16 : 128;
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      add({.module = module, .n = 70, .first = 9, .H = 2, .D = D, .E = 128, .dtype = dtype},
          fmt::format("large_heads_{}", name_of(dtype)));
    }
    add({.module = module,
         .n = 66,
         .first = 9,
         .D = is_normalised(module) ? 13 : 101,
         .E = 67,
         .document = 50,
         .dtype = DType::kBF16},
        "odd_large_heads");
    for (const std::int64_t document : {0, 90, 700}) {
      add({.module = module,
           .n = 1100,
           .first = 300,
           .B = 2,
           .D = 3,
           .E = 2,
           .document = document,
           .decay = 0.01},
          fmt::format("spans_documents{}", document));
    }
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Kernels, EmulatedLinear, ::testing::ValuesIn(gpu_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sp::test
