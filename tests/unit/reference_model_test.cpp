// The reference model and its optimiser: packing, weights, refusals, steps.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "reference/model/optimizer.hpp"
#include "reference/problem/error.hpp"
#include "tests/unit/reference_model_cases.hpp"

namespace sp::test {
namespace {

using reference::ParameterValues;

ModelCase llama() { return model_cases().front(); }

double difference(const ParameterValues& a, const ParameterValues& b) {
  double largest = 0;
  for (std::size_t p = 0; p < a.size(); ++p)
    for (std::size_t i = 0; i < a[p].size(); ++i)
      largest = std::max(largest, std::fabs(a[p][i] - b[p][i]));
  return largest;
}

// Four documents with 2, 7, 7 and 1 loss tokens (LWM, masked sequence packing): one row each, padded,
// or all in one row. A document has one vote, whatever its length.
class Packing : public testing::Test {
 protected:
  static constexpr int kLengths[] = {5, 30, 12, 3}, kLosses[] = {2, 7, 7, 1};

  Packing() : config_(llama().config), documents_(random_batch(config_, 1, 50, 5)) {}

  Batch packed(bool masked, bool weighted) const {
    Batch batch = documents_;
    std::size_t at = 0;
    for (int s = 0; s < 4; ++s) {
      for (int i = 0; i < kLengths[s]; ++i, ++at) {
        if (masked) batch.segment_ids.push_back(s);
        batch.weights[at] = i < kLosses[s] ? (weighted ? 1.0 / (4.0 * kLosses[s]) : 1.0 / 17) : 0;
      }
    }
    return batch;
  }
  Batch padded() const {
    constexpr std::int64_t kRow = 30;
    Batch batch{.B = 4, .N = kRow};
    for (auto* ids : {&batch.tokens, &batch.targets}) ids->resize(4 * kRow);
    batch.weights.resize(4 * kRow);
    std::size_t from = 0;
    for (std::size_t s = 0; s < 4; ++s) {
      for (int i = 0; i < kLengths[s]; ++i, ++from) {
        const std::size_t to = s * kRow + static_cast<std::size_t>(i);
        batch.tokens[to] = documents_.tokens[from];
        batch.targets[to] = documents_.targets[from];
        batch.weights[to] = i < kLosses[s] ? 1.0 / (4.0 * kLosses[s]) : 0;
      }
    }
    return batch;
  }
  reference::ModelResult evaluate(const Batch& batch) const {
    return reference::evaluate_model(config_, parameters_for({"", config_, batch}), batch);
  }

  ModelConfig config_;
  Batch documents_;
};

TEST_F(Packing, MaskedAndWeightedEqualsPadded) {
  const auto reference = evaluate(padded()), result = evaluate(packed(true, true));
  EXPECT_NEAR(result.loss, reference.loss, 1e-14 * reference.loss);
  EXPECT_LT(difference(result.gradients, reference.gradients), 1e-14);
}

TEST_F(Packing, WithoutMaskOrWeightsItDoesNot) {
  const auto reference = evaluate(padded());
  for (const auto& [masked, weighted] : {std::pair{true, false}, {false, true}, {false, false}}) {
    const auto result = evaluate(packed(masked, weighted));
    EXPECT_GT(std::fabs(result.loss - reference.loss), 1e-3 * reference.loss);
    EXPECT_GT(difference(result.gradients, reference.gradients), 1e-3);
  }
}

TEST(ReferenceModelLoss, TokensOfWeightZeroHaveNoPart) {
  ModelCase c = llama();
  const auto before = reference::evaluate_model(c.config, parameters_for(c), c.batch);
  for (std::size_t i = 0; i < c.batch.weights.size(); ++i)
    if (c.batch.weights[i] == 0) c.batch.targets[i] = (c.batch.targets[i] + 1) % 11;
  const auto after = reference::evaluate_model(c.config, parameters_for(c), c.batch);
  EXPECT_EQ(before.loss, after.loss);
  EXPECT_EQ(before.gradients, after.gradients);
  std::fill(c.batch.weights.begin(), c.batch.weights.end(), 0.0);
  EXPECT_EQ(reference::evaluate_model(c.config, parameters_for(c), c.batch).loss, 0);
}

TEST(ReferenceModelLoss, NoTokensIsALegalBatch) {
  for (ModelCase& c : std::vector<ModelCase>(model_cases())) {
    c.batch = random_batch(c.config, 2, 0, 1);
    const auto result = reference::evaluate_model(c.config, parameters_for(c), c.batch);
    EXPECT_EQ(result.loss, 0) << c.name;
    for (const auto& gradient : result.gradients)
      for (const double g : gradient) EXPECT_EQ(g, 0) << c.name;
  }
}

TEST(ReferenceModelConfig, RefusesWhatCannotBe) {
  const auto refusal = [](auto&& change) -> std::string {
    ModelCase c = llama();
    change(c);
    try {
      reference::evaluate_model(c.config, parameters_for(c), c.batch);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal([](ModelCase&) {}), "");
  EXPECT_EQ(refusal([](ModelCase& c) { c.config.kv_heads = 3; }),
            "kv_heads = 3 does not divide heads = 4");
  EXPECT_EQ(refusal([](ModelCase& c) { c.config.head_size = 3; }),
            "head_size = 3 is odd; rotary positions turn pairs");
  EXPECT_EQ(refusal([](ModelCase& c) { c.config.layers = "NX"; }),
            "layers = 'NX' is impossible; allowed: one letter per layer, L linear, N softmax");
  EXPECT_EQ(refusal([](ModelCase& c) { c.config.width = 0; }),
            "width = 0 is impossible; allowed: 1..2147483647");
  EXPECT_EQ(refusal([](ModelCase& c) { c.batch.tokens[3] = 11; }),
            "tokens[3] = 11; allowed: 0..10");
  EXPECT_EQ(refusal([](ModelCase& c) { c.batch.targets[0] = -1; }),
            "targets[0] = -1; allowed: 0..10");
  EXPECT_EQ(refusal([](ModelCase& c) { c.batch.weights[2] = std::nan(""); }),
            "weights[2] = nan; allowed: finite, 0 or more");
  EXPECT_EQ(refusal([](ModelCase& c) { c.batch.segment_ids = {1}; }),
            "the batch has 1 segment_ids, its shape says 10");
  EXPECT_EQ(refusal([](ModelCase& c) {
              c.config.positions = Positions::kLearned;
              c.config.longest = 4;
            }),
            "N = 5 is longer than the 4 learned positions");
}

class Steps : public testing::Test {
 protected:
  ModelConfig model_ = llama().config;
  ParameterValues parameters_ = parameters_for(llama());
  ParameterValues gradients_ = parameters_for(llama());
  reference::OptimizerState state_ = reference::start_of(model_);
};

// With one step behind them the moments say the sign alone.
TEST_F(Steps, TheFirstMovesEveryElementByTheRate) {
  const OptimizerConfig config{
      .rate = 0.5, .warm_up = 0, .steps = 10, .epsilon = 1e-300, .weight_decay = 0.25, .clip = 0};
  const double rate = reference::learning_rate(config, 1);
  const ParameterValues before = parameters_;
  reference::take_step(model_, config, gradients_, parameters_, state_);
  const auto infos = parameters_of(model_);
  for (std::size_t p = 0; p < infos.size(); ++p) {
    const bool decays = infos[p].shape.size() == 2 && infos[p].name != "embedding";
    EXPECT_EQ(infos[p].decays, decays) << infos[p].name;
    for (std::size_t i = 0; i < before[p].size(); ++i) {
      const double sign = gradients_[p][i] > 0 ? 1 : -1;
      const double shrunk = before[p][i] * (1 - (decays ? rate * 0.25 : 0));
      EXPECT_NEAR(parameters_[p][i], shrunk - rate * sign, 1e-14);
    }
  }
}

// Constant gradients keep moments that are unbiased: every step is the first.
TEST_F(Steps, MomentsAreUnbiased) {
  const OptimizerConfig config{
      .rate = 1, .least_rate = 1, .warm_up = 0, .weight_decay = 0, .clip = 0};
  const ParameterValues before = parameters_;
  for (int step = 0; step < 5; ++step)
    reference::take_step(model_, config, gradients_, parameters_, state_);
  EXPECT_EQ(state_.step, 5);
  EXPECT_NEAR(std::fabs(parameters_[0][0] - before[0][0]), 5, 1e-6);
}

TEST_F(Steps, ClippingIsByTheNormOverAllParameters) {
  double squares = 0;
  for (const auto& gradient : gradients_)
    for (const double g : gradient) squares += g * g;
  const ParameterValues whole = gradients_;
  OptimizerConfig config{.clip = std::sqrt(squares) / 4};
  EXPECT_DOUBLE_EQ(reference::take_step(model_, config, gradients_, parameters_, state_),
                   std::sqrt(squares));
  EXPECT_NEAR(gradients_[1][0], whole[1][0] / 4, 1e-15);
  gradients_ = whole;
  config.clip = 2 * std::sqrt(squares);
  reference::take_step(model_, config, gradients_, parameters_, state_);
  EXPECT_EQ(gradients_, whole);
}

TEST(LearningRate, WarmsUpAndFollowsACosine) {
  const OptimizerConfig config{.rate = 1, .least_rate = 0.2, .warm_up = 4, .steps = 24};
  EXPECT_DOUBLE_EQ(reference::learning_rate(config, 1), 0.25);
  EXPECT_DOUBLE_EQ(reference::learning_rate(config, 4), 1);
  EXPECT_DOUBLE_EQ(reference::learning_rate(config, 14), 0.6);
  EXPECT_DOUBLE_EQ(reference::learning_rate(config, 24), 0.2);
  EXPECT_DOUBLE_EQ(reference::learning_rate(config, 1000), 0.2);
}

}  // namespace
}  // namespace sp::test
