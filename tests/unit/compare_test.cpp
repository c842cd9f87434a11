// Verdicts: NaN never passes, limits are where they are said to be, and a failure points at the
// right element, owner and rank.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/compare.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "harness/compare/diagnose.hpp"
#include "harness/compare/oracle.hpp"
#include "harness/generate/cases.hpp"
#include "reference/attention.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

constexpr HostTensor Outputs::* kAll[] = {&Outputs::out,           &Outputs::lse,
                                          &Outputs::d_q,           &Outputs::d_k,
                                          &Outputs::d_v,           &Outputs::d_projection_k,
                                          &Outputs::d_projection_v};

// B = 2, N = 7, H = 4, G = 2 in f32, causal unless projected.
sp::Case example(std::int64_t projected = 0, DType dtype = DType::kF32) {
  sp::Case drawn;
  drawn.problem.shape = {2, 7, 4, 2, 3, 5};
  drawn.problem.dtype = dtype;
  drawn.problem.scale = default_scale(drawn.problem.shape);
  drawn.problem.projected = projected;
  drawn.problem.mask.causal = projected == 0;
  drawn.world = {3, 1};
  return drawn;
}

Outputs stored(const Outputs& exact, DType dtype) {
  Outputs result;
  for (const auto x : kAll) {
    if (!(exact.*x).absent())
      result.*x = (exact.*x).cast(x == &Outputs::lse ? accumulator_of(dtype) : dtype);
  }
  return result;
}

struct Judged {
  sp::Case drawn;
  Inputs inputs = make_inputs(drawn);
  Outputs exact = reference::attention(drawn.problem, inputs);
  Oracle oracle{drawn.problem, inputs, drawn.exact()};
  Outputs result = stored(exact, drawn.problem.dtype);
  Verdict verdict() const { return oracle.judge(result, 1); }
};

TEST(Verdict, PassesTheReferenceRoundedToStorage) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64}) {
    EXPECT_TRUE(Judged{example(0, dtype)}.verdict().passed());
    EXPECT_TRUE(Judged{example(5, dtype)}.verdict().passed());
  }
}

TEST(Verdict, FailsForOneNonFiniteElementInAnyTensor) {
  for (const double wrong : {kNaN, kInfinity, -kInfinity}) {
    for (const std::int64_t projected : {0, 5}) {
      for (const auto x : kAll) {
        Judged judged{example(projected)};
        if ((judged.result.*x).absent()) continue;
        const std::int64_t element = (judged.result.*x).size() / 2;
        (judged.result.*x).set(element, wrong);
        const Verdict verdict = judged.verdict();
        EXPECT_FALSE(verdict.passed());
        ASSERT_NE(verdict.worst(), nullptr);
        EXPECT_EQ(verdict.worst()->worst, element) << verdict.worst()->name;
        EXPECT_EQ(verdict.worst()->failures, 1);
        EXPECT_EQ(verdict.worst()->element.ratio, kInfinity);
      }
    }
  }
}

TEST(Verdict, FailsForNaNInTheReferenceItself) {
  Judged judged{example()};
  Outputs exact = judged.exact;
  exact.out.set(3, kNaN);
  Limits generous;
  generous.out = {1, 1};
  Outputs result;
  result.out = judged.result.out;
  EXPECT_FALSE(compare(result, exact, generous, DType::kF32).passed());
  result.out.set(3, kNaN);
  EXPECT_FALSE(compare(result, exact, generous, DType::kF32).passed());
}

TEST(Verdict, FailsWhereALimitIsNaN) {
  Judged judged{example()};
  Outputs result;
  result.out = judged.result.out;
  result.out.set(0, result.out.at(0) + 1e-3);
  Limits limits;
  limits.out = {0, kNaN};
  EXPECT_FALSE(compare(result, judged.exact, limits, DType::kF32).passed());
}

TEST(Verdict, WantsLogSumExpsOfMinusInfinityExactlyWhereNoKeyIsSeen) {
  const HostTensor exact = HostTensor::from_doubles(DType::kF64, {1, 1, 3}, {{-kInfinity, 1, 2}});
  const auto passes = [&](std::vector<double> values) {
    Outputs result, truth;
    result.lse = HostTensor::from_doubles(DType::kF32, {1, 1, 3}, values);
    truth.lse = exact;
    Limits limits;
    limits.lse = {1, 1e30};
    return compare(result, truth, limits, DType::kF32).passed();
  };
  EXPECT_TRUE(passes({-kInfinity, 1, 2}));
  EXPECT_FALSE(passes({-1e30, 1, 2}));
  EXPECT_FALSE(passes({kInfinity, 1, 2}));
  EXPECT_FALSE(passes({-kInfinity, 1, -kInfinity}));
}

TEST(Verdict, PassesJustBelowTheLimitAndFailsJustAbove) {
  const Limit limit{0x1p-8, 0.25};
  const double expected = -4, allowed = 0x1p-8 * 4 + 0.25;
  for (const double sign : {-1.0, 1.0}) {
    for (const bool above : {false, true}) {
      Outputs result, exact;
      exact.d_k = HostTensor::from_doubles(DType::kF64, {1, 2, 1, 2}, {{1, 2, expected, 3}});
      result.d_k = exact.d_k;
      const double edge = expected + sign * allowed;
      result.d_k.set(2, above ? std::nextafter(edge, sign * 100) : edge);
      Limits limits;
      limits.d_k = limit;
      const Verdict verdict = compare(result, exact, limits, DType::kF64);
      EXPECT_EQ(verdict.passed(), !above);
      ASSERT_NE(verdict.worst(), nullptr);
      EXPECT_EQ(verdict.worst()->worst, 2);
      EXPECT_EQ(verdict.worst()->index, (std::vector<std::int64_t>{0, 1, 0, 0}));
      EXPECT_EQ(verdict.worst()->failures, above ? 1 : 0);
      EXPECT_DOUBLE_EQ(verdict.worst()->element.limit, allowed);
    }
  }
}

TEST(Verdict, RanksElementsByErrorOverTheirOwnLimit) {
  Outputs result, exact;
  exact.out = HostTensor::from_doubles(DType::kF64, {1, 1, 1, 3}, {{1000, 1, 1}});
  result.out = HostTensor::from_doubles(DType::kF64, {1, 1, 1, 3}, {{1004, 1.01, 1}});
  Limits limits;
  limits.out = {0.01, 0};
  const Verdict verdict = compare(result, exact, limits, DType::kF64);
  EXPECT_EQ(verdict.worst()->worst, 1) << "0.01 of 0.01, not 4 of 10";
}

TEST(Verdict, ComparesWhatIsThereAndRefusesAnotherShape) {
  Judged judged{example()};
  judged.result.d_q = {};
  EXPECT_EQ(judged.verdict().tensors.size(), 4u);
  judged.result.d_q = HostTensor(DType::kF32, {2, 7, 4, 4});
  EXPECT_THROW(judged.verdict(), sp::Error);
}

TEST(Verdict, SaysWhereHalfOfWhatIsRightWouldPassToo) {
  Outputs exact, result;
  exact.out = HostTensor::from_doubles(DType::kF64, {1, 1, 2, 2}, {{1, 2, 3, 4}});
  result.out = exact.out;
  Limits limits;
  limits.out = {.absolute = 1};
  EXPECT_TRUE(compare(result, exact, limits, DType::kF32).decided());
  limits.out = {.absolute = 2};
  EXPECT_FALSE(compare(result, exact, limits, DType::kF32).decided());
  // Rows tell, where they are held against something.
  exact.out = HostTensor::from_doubles(DType::kF64, {1, 100, 1, 4}, std::vector<double>(400, 4.0));
  result.out = exact.out;
  limits.out = {
      .sizes = HostTensor::from_doubles(DType::kF64, {1, 100, 1, 4}, std::vector<double>(400, 1.0)),
      .per_size = 2};
  EXPECT_FALSE(compare(result, exact, limits, DType::kF32).decided());
  limits.out.independent = true;
  EXPECT_TRUE(compare(result, exact, limits, DType::kF32).decided());
  // Nothing is wanted of a tensor that vanishes but that it is there.
  exact.out = result.out = HostTensor(DType::kF64, {1, 100, 1, 4});
  EXPECT_TRUE(compare(result, exact, limits, DType::kF32).decided());
}

TEST(Verdict, RefusesARowWhoseElementsAllPass) {
  Outputs exact, result;
  std::vector<double> ones(64, 1.0);
  exact.out = HostTensor::from_doubles(DType::kF64, {1, 1, 1, 64}, ones);
  for (double& x : ones) x += 0.9;
  result.out = HostTensor::from_doubles(DType::kF64, {1, 1, 1, 64}, ones);
  Limits limits;
  limits.out = {.sizes = exact.out, .per_size = 1, .independent = true};
  const Verdict verdict = compare(result, exact, limits, DType::kF32);
  EXPECT_EQ(verdict.worst()->failures, 0);
  EXPECT_EQ(verdict.worst()->row_failures, 1);
  EXPECT_FALSE(verdict.passed());
  EXPECT_NE(describe(*verdict.worst()).find("a row of norm"), std::string::npos);
}

TEST(ExactCase, IsBitwise) {
  sp::Case drawn = example();
  drawn.values = Values::kDominant;
  drawn.problem.scale = 1;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    drawn.problem.dtype = dtype;
    Judged judged{drawn};
    EXPECT_TRUE(judged.verdict().passed());
    for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v}) {
      const double before = (judged.result.*x).at(1);
      // Less than any limit that knows rounding would allow.
      (judged.result.*x).set(1, before == 0 ? 1e-30 : before * (1 + 2 * unit_roundoff(dtype)));
      EXPECT_FALSE(judged.verdict().passed());
      (judged.result.*x).set(1, before);
    }
    EXPECT_TRUE(judged.verdict().passed());
  }
}

TEST(SampledOracle, AgreesWithTheFullOne) {
  sp::Case drawn = example();
  drawn.problem.shape = {1, 3100, 2, 1, 32, 32};
  drawn.problem.mask.window = 40;
  Inputs inputs = make_inputs(drawn);
  Oracle oracle(drawn.problem, inputs, false, Operands::kAccumulator, {.tokens = kSampledTokens});
  ASSERT_TRUE(oracle.sampled());
  ASSERT_GE(std::ssize(oracle.tokens()), kSampledTokens);

  Outputs exact = reference::attention_rows(drawn.problem, inputs, oracle.tokens());
  Outputs result =
      stored(softmax_truth(drawn.problem, inputs, Operands::kAccumulator).exact, DType::kF32);
  EXPECT_TRUE(oracle.judge(result, 1).passed());
  EXPECT_LE(difference(take(result.out, 1, oracle.tokens()), exact.out), 1e-5);

  const std::int64_t token = oracle.tokens()[7];
  const std::int64_t element = ((token * 2) + 1) * 32 + 3;
  const double right = result.out.at(element);
  result.out.set(element, right + 1e-4);
  const Verdict verdict = oracle.judge(result, 1);
  EXPECT_FALSE(verdict.passed());
  const TensorVerdict& worst = *std::ranges::find(verdict.tensors, "out", &TensorVerdict::name);
  EXPECT_EQ(worst.index, (std::vector<std::int64_t>{0, token, 1, 3})) << "of the whole tensor";
  result.out.set(element, right);
  result.d_v.set(oracle.tokens()[2] * 32, kNaN);
  EXPECT_FALSE(oracle.judge(result, 1).passed());
  result.out = result.lse = {};
  EXPECT_FALSE(oracle.judge(result, 1).passed()) << "d_v needs neither";
}

TEST(Diagnose, NamesTheOwnerOfTheTokenAndTheRankThatWasLeftOut) {
  for (const Sharding sharding : {Sharding::kContiguous, Sharding::kStriped, Sharding::kZigzag}) {
    sp::Case drawn = example();
    drawn.problem.shape.N = 24;
    drawn.problem.mask.causal = false;
    Judged judged{drawn};
    const Layout layout(sharding, 24, 4);
    // All rows as if the keys of rank 2 had never come by: they belong to another document.
    Problem without = drawn.problem;
    without.mask.segment_ids.assign(2 * 24, 0);
    const Tokens lost = layout.tokens(2);
    for (const std::int64_t b : {0, 1})
      for (std::int64_t i = 0; i < lost.count(); ++i)
        without.mask.segment_ids[static_cast<std::size_t>(b * 24 + lost.position(i))] = 1;
    const Outputs wrong = reference::attention(without, judged.inputs);
    // One wrong row of a rank that does not own the lost keys.
    const std::int64_t token = layout.tokens(1).position(0), row = 4 * 5;
    for (std::int64_t i = token * row; i < (token + 1) * row; ++i)
      judged.result.out.set(i, wrong.out.at(i));
    const Verdict verdict = judged.verdict();
    ASSERT_FALSE(verdict.passed());
    const std::string text = diagnose(drawn.problem, judged.inputs, verdict, layout);
    EXPECT_NE(text.find("token " + std::to_string(token) + " belongs to rank 1"), std::string::npos)
        << text;
    EXPECT_NE(text.find("without the keys of rank 2"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace sp::test
