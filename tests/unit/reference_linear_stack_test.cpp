// Hybrid stacks are their layers, one after the other; one entry serves every family.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "reference/attention.hpp"
#include "reference/evaluate.hpp"
#include "reference/linear_attention.hpp"
#include "reference/stack.hpp"
#include "tests/unit/reference_linear_cases.hpp"

namespace sp::test {
namespace {

constexpr Module kLayerModules[] = {Module::kBasic, Module::kLightning, Module::kRetention};

Outputs without_lse(Outputs outputs) {
  outputs.lse = {};
  return outputs;
}

TEST(ReferenceStack, OfOneSoftmaxLayerIsAttention) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Case c = stack_case(seed, "N", Module::kBasic);
    SCOPED_TRACE(name(c, seed));
    ASSERT_NO_THROW(validate(c.problem, c.inputs));
    Problem plain = c.problem;
    plain.layers.clear();
    plain.module.reset();
    const Outputs expected = without_lse(reference::attention(plain, c.inputs));
    ASSERT_TRUE(same_bits(reference::stack(c.problem, c.inputs), expected));
  }
}

TEST(ReferenceStack, OfOneLinearLayerIsLinearAttention) {
  for (const Module module : kLayerModules) {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      const Case c = stack_case(seed, "L", module);
      SCOPED_TRACE(name(c, seed));
      Problem plain = c.problem;
      plain.layers.clear();
      ASSERT_TRUE(same_bits(reference::stack(c.problem, c.inputs),
                            reference::linear_attention(plain, c.inputs)));
    }
  }
}

// Heads [layer G, (layer + 1) G) of k or v, chosen by hand.
HostTensor layer_heads(const HostTensor& x, std::int64_t layer, std::int64_t G) {
  std::vector<std::int64_t> heads;
  for (std::int64_t g = 0; g < G; ++g) heads.push_back(layer * G + g);
  return take(x, 2, heads);
}

TEST(ReferenceStack, OfTwoLinearLayersAndASoftmaxLayerIsTheirComposition) {
  for (const Module module : kLayerModules) {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      const Case c = stack_case(seed, "LLN", module);
      SCOPED_TRACE(name(c, seed));
      ASSERT_NO_THROW(validate(c.problem, c.inputs));
      const std::int64_t G = c.problem.shape.G;
      Problem linear = c.problem, softmax = c.problem;
      linear.layers.clear();
      softmax.layers.clear();
      softmax.module.reset();
      std::vector<Inputs> of(3, c.inputs);
      for (std::size_t layer = 0; layer < 3; ++layer) {
        of[layer].k = layer_heads(c.inputs.k, static_cast<std::int64_t>(layer), G);
        of[layer].v = layer_heads(c.inputs.v, static_cast<std::int64_t>(layer), G);
      }
      of[1].q = reference::linear_attention(linear, of[0]).out;
      of[2].q = reference::linear_attention(linear, of[1]).out;
      const Outputs third = reference::attention(softmax, of[2]);
      of[1].d_out = third.d_q;
      const Outputs second = reference::linear_attention(linear, of[1]);
      of[0].d_out = second.d_q;
      const Outputs first = reference::linear_attention(linear, of[0]);

      const Outputs result = reference::stack(c.problem, c.inputs);
      ASSERT_TRUE(same_bits(result.out, third.out));
      ASSERT_TRUE(same_bits(result.d_q, first.d_q));
      std::int64_t layer = 0;
      for (const Outputs* one : {&first, &second, &third}) {
        ASSERT_TRUE(same_bits(layer_heads(result.d_k, layer, G), one->d_k));
        ASSERT_TRUE(same_bits(layer_heads(result.d_v, layer, G), one->d_v));
        ++layer;
      }
      for (std::int64_t h = 0; h < result.d_log_decay.size(); ++h)
        ASSERT_TRUE(result.d_log_decay.at(h) == second.d_log_decay.at(h) + first.d_log_decay.at(h));
      ASSERT_EQ(result.d_log_decay.absent(), module == Module::kBasic);
      ASSERT_TRUE(result.lse.absent());
    }
  }
}

TEST(ReferenceStack, WithoutCotangentReturnsTheSameForwardAndNoGradient) {
  Case c = stack_case(3, "LNL", Module::kRetention);
  const Outputs both = reference::stack(c.problem, c.inputs);
  c.inputs.d_out = {};
  const Outputs forward = reference::stack(c.problem, c.inputs);
  EXPECT_TRUE(same_bits(forward.out, both.out));
  EXPECT_TRUE(forward.d_q.absent() && forward.d_k.absent() && forward.d_v.absent());
  EXPECT_TRUE(forward.d_log_decay.absent());
}

TEST(ReferenceStack, OfNoTokensIsEmpty) {
  Case c = stack_case(3, "LN", Module::kLightning);
  c.problem.shape = {2, 0, 2, 1, 3, 3};
  c.problem.mask.segment_ids.clear();
  c.inputs.q = c.inputs.d_out = HostTensor(DType::kF64, {2, 0, 2, 3});
  c.inputs.k = c.inputs.v = HostTensor(DType::kF64, {2, 0, 2, 3});
  c.inputs.log_decay = HostTensor(DType::kF64, {2});
  ASSERT_NO_THROW(validate(c.problem, c.inputs));
  const Outputs result = reference::stack(c.problem, c.inputs);
  EXPECT_EQ(result.out.shape(), c.inputs.q.shape());
  EXPECT_EQ(result.d_q.shape(), c.inputs.q.shape());
  EXPECT_EQ(result.d_k.shape(), c.inputs.k.shape());
  EXPECT_TRUE(largest(result.d_log_decay) == 0);
}

TEST(ReferenceEvaluate, ServesEveryFamily) {
  const Case softmax = any_case(1, DType::kF32);
  const Case linear = linear_case(2, Module::kGla);
  const Case hybrid = stack_case(3, "LN", Module::kBasic);
  const auto evaluated = [](const Case& c) { return reference::evaluate(c.problem, c.inputs); };
  EXPECT_TRUE(same_bits(evaluated(softmax), reference::attention(softmax.problem, softmax.inputs)));
  EXPECT_TRUE(
      same_bits(evaluated(linear), reference::linear_attention(linear.problem, linear.inputs)));
  EXPECT_TRUE(same_bits(evaluated(hybrid), reference::stack(hybrid.problem, hybrid.inputs)));
  Case projected = softmax;
  projected.problem.mask = {};
  projected.problem.projected = 3;
  projected.inputs = Draw(4).inputs(projected.problem);
  EXPECT_TRUE(
      same_bits(evaluated(projected), reference::attention(projected.problem, projected.inputs)));
}

}  // namespace
}  // namespace sp::test
