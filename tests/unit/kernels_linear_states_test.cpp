// Sums of states, the normaliser, and what the kernels charge.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels_linear_cases.hpp"

namespace sp::test {
namespace {

using LinearStates = KernelsTest;
constexpr DType kF32 = DType::kF32;

TEST_F(LinearStates, SpansDecayWhatCameBefore) {
  const Tensor::Extents shape{3, 1, 2, 4};
  const Values into = random(shape, kF32), first = random(shape, kF32),
               second = random(shape, kF32), log_decay({1, 1, 2, 1}, -0.25);
  const LinearTerms terms{.module = Module::kRetention, .log_decay = put(log_decay, kF32)};
  const Tensor target = put(into, kF32, Placement::kWindow);
  const StateSpan spans[] = {{put(first, kF32, Placement::kWindow), {10, 1, 3}, {}},
                             {put(second, kF32), {13, 1, 5}, {}}};
  kernels_.linear_accumulate(target, spans, terms);
  Values expected(shape);
  for (std::size_t i = 0; i < into.data.size(); ++i) {
    expected.data[i] =
        std::exp(-2.0) * into.data[i] + std::exp(-1.25) * first.data[i] + second.data[i];
  }
  expect_within(take(target), expected, 6 * unit_roundoff(kF32), "sum");  // three terms up to 1
}

TEST_F(LinearStates, SpansOfGatesBringTheirDecayAndItsColumnIsNotSummed) {
  const Tensor::Extents shape{3, 2, 2, 5};
  const Values into = random({3, 2, 2, 4}, kF32);
  Values message = random(shape, kF32);
  Values expected = into;
  for (std::int64_t flat = 0; flat < 12; ++flat) {
    const std::int64_t f = flat / 4, b = flat / 2 % 2, s = flat % 2;
    message.at(f, b, s, 4) = -0.1 * static_cast<double>(flat);
    message.at(f, b, s, 4) = static_cast<double>(static_cast<float>(message.at(f, b, s, 4)));
    for (std::int64_t w = 0; w < 4; ++w) {
      expected.at(f, b, s, w) =
          std::exp(message.at(f, b, s, 4)) * into.at(f, b, s, w) + message.at(f, b, s, w);
    }
  }
  const Tensor target = put(into, kF32), source = put(message, kF32);
  const StateSpan span{source, {10, 1, 3}, source.slice(3, 4, 5)};
  kernels_.linear_accumulate(target, {&span, 1}, {.module = Module::kGla});
  expect_within(take(target), expected, 4 * unit_roundoff(kF32), "sum");
}

TEST_F(LinearStates, SpansInWhichADocumentBeginsForgetWhatCameBefore) {
  const Tensor::Extents shape{1, 2, 1, 1};
  // Sequence 0 changes its id between 4 and 5, sequence 1 never.
  std::vector<std::int32_t> ids(20, 7);
  for (std::size_t i = 5; i < 10; ++i) ids[i] = 8;
  const LinearTerms terms{.module = Module::kBasic, .segments = put_ids(2, 10, ids)};
  const auto sum = [&](const sp::Run& tokens) {
    const Tensor into = put(Values(shape, 1), kF32);
    const StateSpan span{put(Values(shape, 2), kF32), tokens, {}};
    kernels_.linear_accumulate(into, {&span, 1}, terms);
    return take(into).data;
  };
  EXPECT_EQ(sum({1, 1, 4}), (std::vector<double>{3, 3}));  // the change is after it
  EXPECT_EQ(sum({1, 1, 5}), (std::vector<double>{2, 3}));
  EXPECT_EQ(sum({5, 1, 2}), (std::vector<double>{2, 3}));  // its first token begins one
  EXPECT_EQ(sum({6, 1, 4}), (std::vector<double>{3, 3}));
  EXPECT_EQ(sum({0, 1, 2}), (std::vector<double>{2, 2}));  // so does the first of the sequence
  EXPECT_EQ(sum({5, 1, 0}), (std::vector<double>{3, 3}));  // an empty span begins nothing
}

TEST_F(LinearStates, OutputIsTheQuotientAndItsGradient) {
  constexpr double kEpsilon = 0.01;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64}) {
    const DType acc = accumulator_of(dtype);
    Values sums = random({5, 2, 3, 4}, acc);
    for (std::int64_t i = 0; i < 30; ++i) {
      double& divisor = sums.at(i / 6, i / 3 % 2, i % 3, 3);
      divisor = std::fabs(divisor) + 0.5;
      if (acc == kF32) divisor = static_cast<double>(static_cast<float>(divisor));
    }
    const Values d_out = random({5, 2, 3, 3}, dtype);
    Values out(d_out.shape), d_sums(sums.shape);
    for (std::int64_t flat = 0; flat < 30; ++flat) {
      const std::int64_t i = flat / 6, b = flat / 3 % 2, h = flat % 3;
      const double divisor = sums.at(i, b, h, 3) + kEpsilon;
      for (std::int64_t e = 0; e < 3; ++e) {
        const double value = sums.at(i, b, h, e) / divisor;
        out.at(i, b, h, e) = value;
        d_sums.at(i, b, h, e) = d_out.at(i, b, h, e) / divisor;
        d_sums.at(i, b, h, 3) -= d_out.at(i, b, h, e) * value / divisor;
      }
    }
    const Tensor actual = poisoned(out.shape, dtype, Placement::kWindow);
    kernels_.linear_output(actual, put(sums, acc, Placement::kWindow), kEpsilon);
    // |out| is at most 2: two roundings of f32 and the one to storage.
    expect_within(take(actual), out, 2 * (2 * unit_roundoff(acc) + unit_roundoff(dtype)), "out");
    const Tensor gradient = poisoned(sums.shape, acc, Placement::kWindow);
    kernels_.linear_output_backward(gradient, put(d_out, dtype), put(sums, acc), kEpsilon);
    // Three terms of at most 2 * 2, with at most five roundings each.
    expect_within(take(gradient), d_sums, 60 * unit_roundoff(acc), "d_sums");
  }
}

TEST_F(LinearStates, OutputWithoutNormaliserIsACopy) {
  const Values sums = random({5, 2, 3, 4}, DType::kBF16);
  const Tensor out = poisoned(sums.shape, DType::kBF16);
  kernels_.linear_output(out, put(sums, kF32), 0);
  expect_bitwise(take(out), sums, "out");
}

TEST(LinearFlops, CountTheProductsOfTheChunkedForm) {
  for (const std::int64_t n : {0, 1, 7, 8, 9, 29}) {
    std::int64_t pairs = 0;
    for (std::int64_t i = 0; i < n; ++i) pairs += i % 8 + 1;
    EXPECT_EQ(chunk_pairs(n, 8), pairs);
    const Shape shape{.B = 2, .N = 100, .H = 6, .G = 3, .D = 4, .E = 5};
    for (const Module module : kModules) {
      const LinearShape s = linear_shape(shape, module);
      EXPECT_EQ(s.SH, decay_of(module) == Decay::kNone ? 3 : 6);
      EXPECT_EQ(s.F, module == Module::kBased ? 15 : module == Module::kRebased ? 10 : 4);
      EXPECT_EQ(s.W, is_normalised(module) ? 6 : 5);
      const LinearFlops flops = linear_flops(s, n, 8);
      const std::int64_t product = 2 * s.F * s.W * n * s.B;  // of every token with one state
      const std::int64_t both = 2 * (s.D + s.W) * pairs * s.B * s.H;
      EXPECT_EQ(flops.state, product * s.SH);
      EXPECT_EQ(flops.inter, product * s.H);
      EXPECT_EQ(flops.forward, both + product * (s.H + s.SH));
      EXPECT_EQ(flops.d_q, flops.forward);
      EXPECT_EQ(flops.d_kv, 2 * both + product * (s.H + 2 * s.SH));
      EXPECT_EQ(flops.d_kv_inter, 2 * product * s.SH);
    }
  }
}

class LinearCharges : public LinearTest, public KernelObserver {
 protected:
  void before(const Charge& charge, std::span<const Tensor> reads,
              std::span<const Tensor> writes) override {
    last_ = charge;
    for (const auto& tensors : {reads, writes}) {
      for (const Tensor& tensor : tensors) EXPECT_TRUE(tensor.defined()) << charge.kernel;
    }
  }
  template <class F>
  void expect_charge(std::int64_t flops, const char* kernel, F call) {
    const std::int64_t earlier = kernels_.flops();
    call();
    EXPECT_EQ(kernels_.flops() - earlier, flops) << kernel;
    EXPECT_EQ(last_.flops, flops) << kernel;
    EXPECT_STREQ(last_.kernel, kernel);
  }
  Charge last_;
};

TEST_P(LinearCharges, AreThoseOfLinearFlops) {
  const LinearCase& c = GetParam();
  const LinearOperands o = draw(c);
  const LinearShape s =
      linear_shape({.B = c.B, .N = 0, .H = c.H, .G = c.G, .D = c.D, .E = c.E}, c.module);
  const LinearFlops flops = linear_flops(s, c.n, c.chunk);
  const Tensor sums = put(Values({c.n, c.B, c.H, s.W}), kF32);
  const Tensor state = poisoned({s.F, s.B, s.SH, s.W}, kF32);
  const auto zeros = [&](const Tensor& like) { return put(Values(like.shape()), kF32); };
  LinearGradients g{zeros(o.q), zeros(o.k), zeros(o.v), {}, {}, {}};
  if (decay_of(c.module) != Decay::kNone) {
    g.decay_terms = put(Values({c.n, c.B, c.H, c.module == Module::kGla ? c.D : 1}), kF32);
  }
  g.d_gamma = g.d_beta = put(Values({1, 1, 1, c.D}), kF32);
  kernels_.observe(this);
  expect_charge(flops.state, "linear_state", [&] { kernels_.linear_state(o.keys(), state); });
  expect_charge(flops.forward, "linear_forward",
                [&] { kernels_.linear_forward(o.block(), {}, sums, {}); });
  expect_charge(flops.inter, "linear_inter",
                [&] { kernels_.linear_inter(o.queries(), o.before, sums); });
  expect_charge(flops.inter, "linear_apply",
                [&] { kernels_.linear_apply(o.queries(), o.before, sums); });
  expect_charge(flops.state, "linear_d_state",
                [&] { kernels_.linear_d_state(o.queries(), o.d_sums, state); });
  expect_charge(flops.d_q, "linear_d_q",
                [&] { kernels_.linear_d_q(o.block(), {}, o.d_sums, g, {}); });
  expect_charge(flops.inter, "linear_apply_d_q",
                [&] { kernels_.linear_apply_d_q(o.queries(), o.before, o.d_sums, g); });
  expect_charge(flops.d_kv, "linear_d_kv",
                [&] { kernels_.linear_d_kv(o.block(), {}, o.d_sums, g, {}); });
  expect_charge(flops.d_kv_inter, "linear_d_kv_inter",
                [&] { kernels_.linear_d_kv_inter(o.keys(), o.d_after, g); });
  kernels_.observe(nullptr);
}

std::vector<LinearCase> charge_cases() {
  std::vector<LinearCase> cases;
  for (const Module module : kModules) {
    cases.push_back({.name = std::string(name_of(module)),
                     .module = module,
                     .n = 21,
                     .first = 4,
                     .B = 2,
                     .H = 6,
                     .G = 3,
                     .D = 4,
                     .E = 5,
                     .chunk = 8});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Kernels, LinearCharges, ::testing::ValuesIn(charge_cases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sp::test
