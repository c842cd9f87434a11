// The blocked double side: the plain reference within the rounding of double, and sizes that say what rounding does.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/softmax_truth.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/compare/sample.hpp"
#include "harness/generate/cases.hpp"
#include "reference/attention.hpp"

namespace sp::test {
namespace {

constexpr HostTensor Outputs::* kAll[] = {&Outputs::out,           &Outputs::lse,
                                          &Outputs::d_q,           &Outputs::d_k,
                                          &Outputs::d_v,           &Outputs::d_projection_k,
                                          &Outputs::d_projection_v};

#ifdef SP_SANITIZED
constexpr std::uint64_t kDraws = 100;  // sanitizers look at memory, not at numbers
#else
constexpr std::uint64_t kDraws = 300;
#endif

// Largest |a - b| in units of the sizes, made those of double.
double distance(const HostTensor& a, const HostTensor& b, const HostTensor& sizes, double w) {
  EXPECT_EQ(a.shape(), b.shape());
  double worst = 0;
  for (std::int64_t i = 0; i < a.size() && a.shape() == b.shape(); ++i) {
    if (a.at(i) == b.at(i)) continue;
    const double size = sizes.at(i) * 0x1p-53 / w + std::fabs(a.at(i)) * 0x1p-53 + 1e-150;
    const double ratio = std::fabs(a.at(i) - b.at(i)) / size;
    worst = ratio <= worst ? worst : ratio;
    if (std::isnan(ratio)) return ratio;
  }
  return worst;
}

TEST(SoftmaxTruth, IsThePlainReferenceUpToTheRoundingOfDouble) {
  double worst = 0;
  for (const Family family : {Family::kSoftmax, Family::kProjectedSoftmax}) {
    for (std::uint64_t index = 0; index < kDraws; ++index) {
      find_failure({}, family, 3, index, 0, [&](const sp::Case& drawn) {
        if (drawn.problem.shape.N > 700) return false;  // plain loops take long
        const Inputs inputs = make_inputs(drawn);
        const Outputs plain = reference::attention(drawn.problem, inputs);
        const SoftmaxTruth truth = softmax_truth(drawn.problem, inputs, Operands::kAccumulator);
        const double w = unit_roundoff(accumulator_of(drawn.problem.dtype));
        for (const auto x : kAll) {
          EXPECT_EQ((plain.*x).absent(), (truth.exact.*x).absent());
          if ((plain.*x).absent()) continue;
          const double ratio = distance(plain.*x, truth.exact.*x, truth.sizes.*x, w);
          EXPECT_LE(ratio, 6) << describe(drawn);
          worst = std::max(worst, ratio);
        }
        return false;
      });
    }
  }
  EXPECT_GT(worst, 0.1) << "no rounding was seen: the two are one";
}

sp::Case long_case(bool segments, std::int64_t window) {
  sp::Case drawn;
  Problem& problem = drawn.problem;
  problem.shape = {2, 700, 4, 2, 20, 9};
  problem.mask.causal = true;
  problem.mask.window = window;
  if (segments) {
    for (std::int64_t n = 0; n < 2 * 700; ++n)
      problem.mask.segment_ids.push_back(static_cast<std::int32_t>(n / 130));
  }
  problem.scale = default_scale(problem.shape);
  return drawn;
}

TEST(SoftmaxTruth, OfChosenTokensIsThatOfAll) {
  for (const bool segments : {false, true}) {
    for (const std::int64_t window : {0, 150}) {
      const sp::Case drawn = long_case(segments, window);
      const Inputs inputs = make_inputs(drawn);
      const std::vector<std::int64_t> tokens{0, 5, 127, 128, 300, 511, 512, 699};
      const SoftmaxTruth all = softmax_truth(drawn.problem, inputs, Operands::kAccumulator);
      const SoftmaxTruth some =
          softmax_truth(drawn.problem, inputs, tokens, Operands::kAccumulator);
      for (const auto x :
           {&Outputs::out, &Outputs::lse, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v}) {
        const bool lse = x == &Outputs::lse;
        const std::int64_t row = lse ? 1 : (all.exact.*x).size() / (2 * 700);
        const std::int64_t before = lse ? 2 * 4 : 2, count = std::ssize(tokens);
        for (std::int64_t b = 0; b < before; ++b)
          for (std::int64_t t = 0; t < count; ++t)
            for (std::int64_t i = 0; i < row; ++i) {
              const std::int64_t in_all = (b * 700 + tokens[static_cast<std::size_t>(t)]) * row + i;
              const std::int64_t in_some = (b * count + t) * row + i;
              ASSERT_EQ((all.exact.*x).at(in_all), (some.exact.*x).at(in_some));
              ASSERT_NEAR((all.sizes.*x).at(in_all), (some.sizes.*x).at(in_some),
                          1e-12 * (all.sizes.*x).at(in_all));
            }
      }
    }
  }
}

// Attention of one query and one head in f32, term by term: what the sizes of a long row have to describe.
TEST(SoftmaxTruth, SizesAreTwoToTwentyTimesTheErrorsOfPlainLoops) {
  sp::Case drawn;
  drawn.problem.shape = {1, 1000, 1, 1, 16, 16};
  drawn.problem.scale = default_scale(drawn.problem.shape);
  const Inputs inputs = make_inputs(drawn);
  const SoftmaxTruth truth = softmax_truth(drawn.problem, inputs, Operands::kAccumulator);
  double errors = 0, sizes = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    std::vector<float> p(1000);
    float top = -1e30f, sum = 0;
    for (std::int64_t j = 0; j < 1000; ++j) {
      float score = 0;
      for (std::int64_t c = 0; c < 16; ++c)
        score += inputs.q.as<float>()[static_cast<std::size_t>(i * 16 + c)] *
                 inputs.k.as<float>()[static_cast<std::size_t>(j * 16 + c)];
      p[static_cast<std::size_t>(j)] = 0.25f * score;
      top = std::max(top, 0.25f * score);
    }
    for (float& x : p) sum += (x = std::exp(x - top));
    for (std::int64_t c = 0; c < 16; ++c) {
      float out = 0;
      for (std::int64_t j = 0; j < 1000; ++j)
        out += p[static_cast<std::size_t>(j)] *
               inputs.v.as<float>()[static_cast<std::size_t>(j * 16 + c)];
      const double error = static_cast<double>(out / sum) - truth.exact.out.at(i * 16 + c);
      errors += error * error;
      sizes += truth.sizes.out.at(i * 16 + c) * truth.sizes.out.at(i * 16 + c);
    }
  }
  EXPECT_GT(std::sqrt(sizes / errors), 2);
  EXPECT_LT(std::sqrt(sizes / errors), 20);
}

TEST(Sample, HoldsBothSidesOfEveryBorder) {
  sp::Case drawn = long_case(true, 0);
  const std::vector<std::int64_t> tokens = sample_tokens(drawn.problem, 64, {});
  EXPECT_GE(std::ssize(tokens), 64);
  EXPECT_TRUE(std::ranges::is_sorted(tokens));
  for (const std::int64_t end : {130, 260, 390, 520, 650, 80, 350, 175, 525, 88}) {
    for (const std::int64_t token : {end - 1, end})
      EXPECT_TRUE(std::ranges::binary_search(tokens, token)) << token;
  }
  // Five chunks of 140 tokens, or ten of 70.
  const std::vector<std::int64_t> five = sample_tokens(drawn.problem, 64, {5});
  for (const std::int64_t token : {69, 70, 139, 140, 629, 630})
    EXPECT_TRUE(std::ranges::binary_search(five, token)) << token;
  EXPECT_EQ(std::ssize(sample_tokens(drawn.problem, 700, {})), 700);
  drawn.problem.shape.N = 0;
  drawn.problem.mask.segment_ids.clear();
  EXPECT_TRUE(sample_tokens(drawn.problem, 64, {}).empty());
}

}  // namespace
}  // namespace sp::test
