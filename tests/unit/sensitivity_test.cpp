// The published figures of harness/README.md: no limit may become blunter than they say.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/sensitivity.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <optional>

#include "harness/generate/cases.hpp"

namespace sp::test {
namespace {

// The largest eps that may be the smallest refused, of a row, of noise, of a part, and of its rounding.
struct Figures {
  double row, noise, part, hop;
};

// `times`: how much blunter it may be.
void expect_at_most(DType dtype, std::int64_t tokens, Operands operands, const Sampling& sampling,
                    const std::map<std::string, Figures>& figures, double times = 1,
                    std::optional<Module> module = {}) {
#ifdef SP_SANITIZED
  if (sampling.tokens == 0 || module) GTEST_SKIP() << "the same code and figures take minutes";
#endif
  sp::Case drawn;
  drawn.problem.module = module;
  drawn.problem.shape = {1, tokens, 4, 2, 64, 64};
  if (tokens > 10000) drawn.problem.shape.H = drawn.problem.shape.G = 1;  // for time
  drawn.problem.dtype = dtype;
  drawn.problem.mask.causal = true;
  drawn.problem.scale = module == Module::kBasic ? 1 : default_scale(drawn.problem.shape);
  const Inputs inputs = make_inputs(drawn);
  bool sampled = false;
  const auto found = sensitivity(drawn.problem, inputs, operands, sampling, &sampled);
  EXPECT_EQ(sampled, sampling.tokens > 0);
  EXPECT_EQ(found.size(), module ? 4u : 5u);
  for (const Sensitivity& tensor : found) {
    SCOPED_TRACE(tensor.tensor);
    const Figures& figure = figures.at(tensor.tensor);
    EXPECT_LE(tensor.row, times * figure.row);
    EXPECT_LE(tensor.noise, times * figure.noise);
    EXPECT_TRUE(std::isnan(tensor.part) || tensor.part <= times * figure.part) << tensor.part;
    EXPECT_TRUE(std::isnan(tensor.hop) || tensor.hop <= times * figure.hop) << tensor.hop;
  }
}

const std::map<std::string, Figures> kF32{{"out", {0x1p-16, 0x1p-20, 0x1p-16, 0x1p-17}},
                                          {"lse", {0x1p-19, 0x1p-22, 0x1p-18, 0}},
                                          {"d_q", {0x1p-16, 0x1p-21, 0x1p-18, 0x1p-17}},
                                          {"d_k", {0x1p-16, 0x1p-26, 0x1p-17, 0x1p-17}},
                                          {"d_v", {0x1p-16, 0x1p-26, 0x1p-17, 0x1p-17}}};

TEST(SensitivityFigures, HoldInF32) {
  expect_at_most(DType::kF32, 1000, Operands::kAccumulator, {}, kF32);
}

// Noise is seen first in the smallest rows, which need not be among them.
TEST(SensitivityFigures, AreNearThoseOfAllTokensWhereSomeAreCompared) {
  expect_at_most(DType::kF32, 1000, Operands::kAccumulator, {.tokens = 100}, kF32, 4);
}

TEST(SensitivityFigures, HoldInBf16) {
  expect_at_most(DType::kBF16, 1000, Operands::kAccumulator, {},
                 {{"out", {0x1p-11, 0x1p-18, 0x1p-16, 0x1p-15}},
                  {"lse", {0x1p-19, 0x1p-22, 0x1p-18, 0}},
                  {"d_q", {0x1p-10, 0x1p-16, 0x1p-14, 0x1p-13}},
                  {"d_k", {0x1p-8, 0x1p-19, 0x1p-9, 0x1p-8}},
                  {"d_v", {0x1p-10, 0x1p-21, 0x1p-16, 0x1p-15}}});
}

TEST(SensitivityFigures, HoldWhereOperandsAreRounded) {
  expect_at_most(DType::kBF16, 1000, Operands::kStorage, {},
                 {{"out", {0x1p-6, 0x1p-9, 0x1p-6, 0x1p-7}},
                  {"lse", {0x1p-19, 0x1p-22, 0x1p-18, 0}},
                  {"d_q", {0x1p-6, 0x1p-9, 0x1p-7, 0x1p-6}},
                  {"d_k", {0x1p-6, 0x1p-16, 0x1p-7, 0x1p-6}},
                  {"d_v", {0x1p-6, 0x1p-16, 0x1p-7, 0x1p-6}}});
}

// Of all four tensors; 32K tokens are as sharp as 500, but for what sums of so many terms lose.
void expect_linear(DType dtype, std::int64_t tokens, const Sampling& sampling,
                   const Figures& figures) {
  for (const Module module : {Module::kBasic, Module::kGla}) {
    SCOPED_TRACE(name_of(module));
    expect_at_most(dtype, tokens, Operands::kAccumulator, sampling,
                   {{"out", figures}, {"d_q", figures}, {"d_k", figures}, {"d_v", figures}}, 1,
                   module);
  }
}

TEST(SensitivityFigures, HoldForLinearAttention) {
  expect_linear(DType::kF32, 500, {}, {0x1p-16, 0x1p-21, 0x1p-18, 0x1p-17});
  expect_linear(DType::kBF16, 500, {}, {0x1p-8, 0x1p-16, 0x1p-13, 0x1p-12});
}

TEST(SensitivityFigures, HoldForLongLinearAttention) {
  expect_linear(DType::kF32, 32768, {.tokens = 64}, {0x1p-14, 0x1p-21, 0x1p-17, 0x1p-16});
  expect_linear(DType::kBF16, 32768, {.tokens = 64}, {0x1p-8, 0x1p-14, 0x1p-11, 0x1p-10});
}

}  // namespace
}  // namespace sp::test
