// Chosen rows of linear attention have the bits of the full result.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "reference/linear_attention.hpp"
#include "reference/problem/error.hpp"
#include "tests/unit/reference_linear_cases.hpp"

namespace sp::test {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kF64};

Case rows_case(std::uint64_t seed, Module module, std::int64_t longest = 24) {
  return linear_case(seed, module, kTypes[seed % 4], longest);
}

TEST(ReferenceLinearRows, HaveTheBitsOfTheFullResultForAnyModule) {
  for (const Module module : kModules) {
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      // Some longer than the steps that a state puts off.
      const Case c = rows_case(seed, module, seed % 6 == 0 ? 90 : 24);
      SCOPED_TRACE(name(c, seed));
      Draw draw(seed);
      std::vector<std::int64_t> tokens;  // any order, repetitions allowed, possibly none
      for (std::int64_t n = draw.integer(0, 6); n > 0; --n)
        tokens.push_back(draw.integer(0, c.problem.shape.N - 1));
      const Outputs full = reference::linear_attention(c.problem, c.inputs);
      const Outputs rows = reference::linear_attention_rows(c.problem, c.inputs, tokens);
      for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v})
        ASSERT_TRUE(same_bits(rows.*x, take(full.*x, 1, tokens)));
      for (const auto x :
           {&Outputs::lse, &Outputs::d_log_decay, &Outputs::d_gamma, &Outputs::d_beta})
        ASSERT_TRUE((rows.*x).absent());

      Inputs forward = c.inputs;
      forward.d_out = {};
      const Outputs outs = reference::linear_attention_rows(c.problem, forward, tokens);
      ASSERT_TRUE(same_bits(outs.out, rows.out));
      ASSERT_TRUE(outs.d_q.absent() && outs.d_k.absent() && outs.d_v.absent());
    }
  }
}

void expect_usage(const Case& c, const std::vector<std::int64_t>& tokens, const std::string& word) {
  try {
    reference::linear_attention_rows(c.problem, c.inputs, tokens);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
  }
}

TEST(ReferenceLinearRows, RefuseTokensThatDoNotExist) {
  const Case c = rows_case(1, Module::kBasic);
  const std::int64_t N = c.problem.shape.N;
  expect_usage(c, {0, -1}, "token -1");
  expect_usage(c, {0, N}, "token " + std::to_string(N));
}

TEST(ReferenceLinearRows, AndTheFullResultRefuseTensorsOfAnotherShape) {
  for (const auto x : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out, &Inputs::log_decay}) {
    Case c = rows_case(3, Module::kGla);
    c.inputs.*x = HostTensor(DType::kF32, {1, 1, 1, 1});
    EXPECT_THROW(reference::linear_attention(c.problem, c.inputs), Error);
    EXPECT_THROW(reference::linear_attention_rows(c.problem, c.inputs, {}), Error);
  }
}

}  // namespace
}  // namespace sp::test
