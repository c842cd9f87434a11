// Verdicts on linear attention and stacks: limits follow the size of the terms, element by element.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>

#include "harness/compare/compare.hpp"
#include "harness/compare/linear_terms.hpp"
#include "harness/compare/oracle.hpp"
#include "harness/generate/cases.hpp"
#include "reference/evaluate.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

constexpr HostTensor Outputs::* kAll[] = {&Outputs::out,     &Outputs::lse,   &Outputs::d_q,
                                          &Outputs::d_k,     &Outputs::d_v,   &Outputs::d_log_decay,
                                          &Outputs::d_gamma, &Outputs::d_beta};

bool holds_storage(const HostTensor Outputs::* x) {
  return x == &Outputs::out || x == &Outputs::d_q || x == &Outputs::d_k || x == &Outputs::d_v;
}

// B = 2, N = 7, H = 4, G = 2, causal; a stack of layers if there are any.
sp::Case example(Module module, DType dtype = DType::kF32, const std::string& layers = "") {
  sp::Case drawn;
  drawn.problem.shape = {2, 7, 4, 2, 5, layers.empty() ? 3 : 5};
  drawn.problem.dtype = dtype;
  drawn.problem.module = module;
  drawn.problem.mask.causal = true;
  drawn.problem.epsilon = is_normalised(module) ? 0.5 : 0;
  drawn.problem.scale = is_normalised(module) ? 1 : default_scale(drawn.problem.shape);
  drawn.problem.layers = layers;
  drawn.world = {3, 1};
  drawn.value_seed = 4;
  return drawn;
}

std::vector<sp::Case> examples(DType dtype = DType::kF32) {
  std::vector<sp::Case> all;
  for (const Module module : kModules) all.push_back(example(module, dtype));
  all.push_back(example(Module::kBased, dtype));
  all.back().problem.mask.window = 3;
  all.push_back(example(Module::kRetention, dtype, "LLN"));
  return all;
}

struct Judged {
  explicit Judged(sp::Case c) : drawn(std::move(c)) {
    const DType storage = drawn.problem.dtype;
    for (const auto x : kAll) {
      if ((exact.*x).absent()) continue;
      result.*x = (exact.*x).cast(holds_storage(x) ? storage : accumulator_of(storage));
    }
  }
  Verdict verdict() const { return oracle.judge(result, 1); }

  sp::Case drawn;
  Inputs inputs = make_inputs(drawn);
  Outputs exact = reference::evaluate(drawn.problem, inputs);
  Oracle oracle{drawn.problem, inputs, drawn.exact()};
  Outputs result;
};

TEST(LinearVerdict, PassesTheReferenceRoundedToStorage) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64}) {
    for (const sp::Case& drawn : examples(dtype))
      EXPECT_TRUE(Judged(drawn).verdict().passed()) << describe(drawn);
  }
}

TEST(LinearVerdict, FailsForOneNonFiniteElementInAnyTensor) {
  for (const sp::Case& drawn : examples()) {
    Judged judged(drawn);
    for (const auto x : kAll) {
      if ((judged.result.*x).absent()) continue;
      const std::int64_t element = (judged.result.*x).size() / 2;
      const double right = (judged.result.*x).at(element);
      for (const double wrong : {kNaN, kInfinity, -kInfinity}) {
        (judged.result.*x).set(element, wrong);
        const Verdict verdict = judged.verdict();
        EXPECT_FALSE(verdict.passed()) << describe(drawn);
        ASSERT_NE(verdict.worst(), nullptr);
        EXPECT_EQ(verdict.worst()->worst, element) << verdict.worst()->name;
        EXPECT_EQ(verdict.worst()->failures, 1);
      }
      (judged.result.*x).set(element, right);
    }
  }
}

// Far less than a wrong term, far more than rounding.
TEST(LinearVerdict, FailsForOneWrongElementInAnyTensor) {
  for (const DType dtype : {DType::kF64, DType::kF32}) {
    for (const sp::Case& drawn : examples(dtype)) {
      Judged judged(drawn);
      for (const auto x : kAll) {
        HostTensor& tensor = judged.result.*x;
        if (tensor.absent()) continue;
        const double right = tensor.at(1);
        tensor.set(1, right + 1e-3 * largest(tensor));
        const Verdict verdict = judged.verdict();
        EXPECT_FALSE(verdict.passed()) << describe(drawn);
        ASSERT_NE(verdict.worst(), nullptr);
        EXPECT_EQ(verdict.worst()->worst, 1) << verdict.worst()->name << ' ' << describe(drawn);
        EXPECT_EQ(verdict.worst()->failures, 1);
        tensor.set(1, right);
      }
    }
  }
}

TEST(LinearVerdict, OfIntegersIsBitwise) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    sp::Case drawn = example(Module::kGla, dtype);
    drawn.values = Values::kIntegers;
    drawn.decays = Decays::kNone;
    drawn.problem.scale = 1;
    Judged judged(drawn);
    EXPECT_TRUE(judged.verdict().passed());
    for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v}) {
      const double before = (judged.result.*x).at(1);
      (judged.result.*x).set(1, before == 0 ? 1e-30 : before * (1 + 2 * unit_roundoff(dtype)));
      EXPECT_FALSE(judged.verdict().passed());
      (judged.result.*x).set(1, before);
    }
  }
}

// One token, one head: they can be written down.
TEST(LinearTerms, AreSumsOfAbsoluteValues) {
  Problem problem;
  problem.shape = {1, 2, 1, 1, 2, 1};
  problem.module = Module::kLightning;
  problem.mask.causal = true;
  problem.dtype = DType::kF64;
  problem.scale = -2;
  const auto tensor = [](std::vector<std::int64_t> shape, std::vector<double> values) {
    return HostTensor::from_doubles(DType::kF64, std::move(shape), values);
  };
  Inputs inputs;
  inputs.q = tensor({1, 2, 1, 2}, {1, -3, 2, -1});
  inputs.k = tensor({1, 2, 1, 2}, {3, 1, 1, 2});
  inputs.v = tensor({1, 2, 1, 1}, {-5, 7});
  inputs.log_decay = tensor({1}, {0});
  const Outputs exact = reference::evaluate(problem, inputs);
  const HostTensor terms = linear_terms(problem, inputs, exact).out;
  EXPECT_EQ(exact.out.at(0), 0);  // 3 - 3: nothing is left of it
  EXPECT_DOUBLE_EQ(terms.at(0), 2 * (3 + 3) * 5);
  EXPECT_DOUBLE_EQ(terms.at(1), 2 * ((6 + 1) * 5 + (2 + 2) * 7));
}

constexpr double kUnlimited = 1e30;  // the size of what may be anything but NaN and Inf

TEST(LinearTerms, AreUnlimitedOnlyWhereADenominatorMayVanish) {
  for (const Module module : kModules) {
    sp::Case drawn = example(module, DType::kF64);
    drawn.problem.epsilon = default_epsilon(module);
    const Judged judged(drawn);
    const Outputs sizes = linear_terms(drawn.problem, judged.inputs, judged.exact);
    for (const auto x : kAll)
      if (!(sizes.*x).absent()) {
        EXPECT_LT(largest(sizes.*x), kUnlimited) << name_of(module);
      }
  }
}

// Under layer norm the first query is orthogonal to its only key: 0 / epsilon.
TEST(LinearTerms, OfARowWithoutWeightAreUnlimitedUnlessEpsilonIsLarge) {
  for (const double epsilon : {1e-18, 1e-9, 1.0}) {
    sp::Case drawn = example(Module::kRebased, DType::kF64);
    drawn.problem.shape = {1, 3, 1, 1, 4, 2};
    drawn.problem.epsilon = epsilon;
    Inputs inputs = make_inputs(drawn);
    const double q[] = {1, -1, 1, -1}, k[] = {1, 1, -1, -1};
    for (std::int64_t d = 0; d < 4; ++d) {
      inputs.q.set(d, q[d]);
      inputs.k.set(d, k[d]);
      inputs.gamma.set(d, 1);
      inputs.beta.set(d, 0);
    }
    const Outputs exact = reference::evaluate(drawn.problem, inputs);
    const Outputs sizes = linear_terms(drawn.problem, inputs, exact);
    for (std::int64_t e = 0; e < 2; ++e) {
      EXPECT_EQ(sizes.out.at(e) > kUnlimited, epsilon == 1e-18) << epsilon;
      for (std::int64_t n = 1; n < 3; ++n) EXPECT_LT(sizes.out.at(n * 2 + e), kUnlimited);
    }
    const Oracle oracle(drawn.problem, inputs, false);
    Outputs result;
    result.out = exact.out;
    EXPECT_TRUE(oracle.judge(result, 1).passed());
    for (const double wrong : {kNaN, kInfinity, -kInfinity}) {
      result.out.set(0, wrong);
      EXPECT_FALSE(oracle.judge(result, 1).passed());
    }
    result.out.set(0, exact.out.at(0));
    result.out.set(2, exact.out.at(2) + 1e-3);  // a row beside it
    EXPECT_FALSE(oracle.judge(result, 1).passed());
  }
}

class SampledLinearOracle : public testing::TestWithParam<bool> {};

TEST_P(SampledLinearOracle, AgreesWithTheFullOne) {
  sp::Case drawn = example(Module::kLightning);
  drawn.problem.shape = {1, 3300, 2, 1, 32, 32};
  drawn.problem.mask.causal = GetParam();
  const Inputs inputs = make_inputs(drawn);
  const Oracle oracle(drawn.problem, inputs, false, Operands::kAccumulator, {.tokens = 64});
  ASSERT_TRUE(oracle.sampled());
  ASSERT_FALSE(Oracle(drawn.problem, inputs, false).sampled());
  Outputs result;
  const Outputs exact = reference::evaluate(drawn.problem, inputs);
  for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v})
    result.*x = (exact.*x).cast(DType::kF32);
  EXPECT_TRUE(oracle.judge(result, 1).passed());
  const std::int64_t token = oracle.tokens()[7];
  for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v}) {
    HostTensor& tensor = result.*x;
    const std::int64_t element = token * tensor.extent(2) * tensor.extent(3) + 3;
    const double right = tensor.at(element);
    tensor.set(element, right + 1e-2);
    const Verdict verdict = oracle.judge(result, 1);
    EXPECT_FALSE(verdict.passed());
    EXPECT_EQ(verdict.worst()->index, (std::vector<std::int64_t>{0, token, 0, 3}));
    tensor.set(element, kNaN);
    EXPECT_FALSE(oracle.judge(result, 1).passed());
    tensor.set(element, right);
  }
}

INSTANTIATE_TEST_SUITE_P(Causal, SampledLinearOracle, testing::Bool());

TEST(Oracle, RefusesWhatIsTooLargeAndHasNoSweeps) {
  for (const Module module : {Module::kBased, Module::kRebased}) {
    sp::Case drawn = example(module);
    drawn.problem.shape = {1, 3300, 2, 1, 32, 32};
    EXPECT_THROW(Oracle(drawn.problem, make_inputs(drawn), false), Error);
  }
}

}  // namespace
}  // namespace sp::test
