// Inputs whose roundings are alike: right results pass, and random inputs lose nothing.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/likeness.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "harness/compare/oracle.hpp"
#include "harness/generate/values.hpp"
#include "harness/run/execute.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp::test {
namespace {

using Value = std::function<double(std::int64_t token, std::int64_t channel)>;

Problem causal(std::int64_t tokens, std::optional<Module> module = {}) {
  Problem problem;
  problem.shape = {1, tokens, 2, 1, 32, 32};
  problem.mask.causal = true;
  problem.scale = default_scale(problem.shape);
  problem.module = module;
  return problem;
}

Inputs filled(const Problem& problem, const Value& value) {
  const Shape& s = problem.shape;
  Inputs inputs;
  const auto fill = [&](std::int64_t heads) {
    HostTensor x(problem.dtype, {s.B, s.N, heads, s.D});
    for (std::int64_t i = 0; i < x.size(); ++i) x.set(i, value(i / (heads * s.D) % s.N, i % s.D));
    return x;
  };
  inputs.q = fill(s.H);
  inputs.k = fill(s.G);
  inputs.v = fill(s.G);
  inputs.d_out = fill(s.H);
  return inputs;
}

double noise(std::int64_t token, std::int64_t channel) {
  return Stream(static_cast<std::uint64_t>(token * 1000 + channel)).normal();
}

TEST(Likeness, CountsEqualTokensAndChannels) {
  const Problem problem = causal(400);
  const auto of = [&](const Value& value) { return likeness(filled(problem, value)); };
  EXPECT_EQ(of(noise), 1);
  EXPECT_NEAR(of([](auto, auto c) { return noise(0, c); }), 20, 1e-9);
  EXPECT_NEAR(of([](auto n, auto) { return noise(n, 0); }), std::sqrt(32), 1e-9);
  EXPECT_NEAR(of([](auto, auto) { return 1.0; }), std::sqrt(400 * 32), 1e-9);
  // Half of all tokens are padding: zeros are not rounded, but equal numbers are.
  EXPECT_EQ(of([](auto n, auto c) { return n < 200 ? noise(n, c) : 0; }), 1);
  EXPECT_NEAR(of([](auto n, auto c) { return noise(std::min<std::int64_t>(n, 200), c); }),
              std::sqrt((200 * 200 + 200) / 400.0), 0.01);
}

TEST(Likeness, OfEachInputAlone) {
  const Problem problem = causal(100);
  Inputs inputs = filled(problem, noise);
  EXPECT_EQ(likeness_of_each(inputs), 1);
  inputs.v = filled(problem, [](auto, auto c) { return noise(0, c); }).v;
  EXPECT_EQ(likeness(inputs), 1);
  EXPECT_NEAR(likeness_of_each(inputs), 10, 1e-9);
}

// Without it the limits of such problems were exceeded 2 to 70 times.
TEST(Likeness, LetsRightResultsPass) {
  const auto backend = make_thread_backend();
  const std::vector<Value> kinds{
      [](auto, auto) { return 1.0; },
      [](auto n, auto) { return static_cast<double>(n) / 1000; },
      [](auto, auto c) { return noise(0, c); },
      [](auto n, auto c) { return noise(n % 3, c); },
      [](auto n, auto c) { return n < 500 ? noise(n, c) : 1.0; },
  };
  for (const auto& [id, module] : {std::pair<const char*, std::optional<Module>>{"ring/zigzag", {}},
                                   {"rsa", {}},
                                   {"lasp2", Module::kBasic},
                                   {"ring_linear", Module::kBasic}}) {
    const Problem problem = causal(1000, module);
    for (std::size_t kind = 0; kind < kinds.size(); ++kind) {
      SCOPED_TRACE(std::string(id) + ", kind " + std::to_string(kind));
      const Inputs inputs = filled(problem, kinds[kind]);
      const Oracle oracle(problem, inputs, false);
      const Outputs result =
          execute(*backend, {}, *find_algorithm(id), problem, inputs, {4, 1, 1}).outputs;
      const Verdict verdict = oracle.judge(result, 1);
      EXPECT_TRUE(verdict.passed()) << describe(*verdict.worst());
      for (const TensorVerdict& tensor : verdict.tensors) EXPECT_LT(tensor.beyond, 0.95);
    }
  }
}

}  // namespace
}  // namespace sp::test
