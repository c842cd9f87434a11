// Problems: modules and their rules, layers of a stack, and what validate() refuses.
//
// SPDX-License-Identifier: Apache-2.0
#include "reference/problem/problem.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

std::string complaint(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Module, IsReadFromItsName) {
  for (const Module module : kModules) EXPECT_EQ(parse_module(name_of(module)), module);
  for (const char* name : {"", "Gla", "gla ", "softmax"}) {
    EXPECT_TRUE(has(complaint([&] { parse_module(name); }),
                    "allowed: basic, lightning, retention, gla, based, rebased"))
        << name;
  }
}

TEST(Family, HasANameOfItsOwn) {
  EXPECT_EQ(name_of(Family::kSoftmax), "softmax");
  EXPECT_EQ(name_of(Family::kProjectedSoftmax), "projected softmax");
  EXPECT_EQ(name_of(Family::kLinear), "linear");
  EXPECT_EQ(name_of(Family::kHybrid), "hybrid");
}

TEST(DefaultLogDecay, OfLightningIsTheSlopesOfPowersOfTwo) {
  const std::vector<double> eight = default_log_decay(Module::kLightning, 8);
  ASSERT_EQ(eight.size(), 8u);
  for (int h = 0; h < 8; ++h) EXPECT_EQ(eight[static_cast<std::size_t>(h)], -std::exp2(-1 - h));
  EXPECT_EQ(default_log_decay(Module::kLightning, 1), std::vector<double>{-1.0 / 256});
}

TEST(DefaultLogDecay, OfLightningFillsOtherHeadCountsFromTheNextPower) {
  EXPECT_EQ(default_log_decay(Module::kLightning, 3),
            (std::vector<double>{-1.0 / 16, -1.0 / 256, -0.25}));
  const std::vector<double> twelve = default_log_decay(Module::kLightning, 12);
  ASSERT_EQ(twelve.size(), 12u);
  for (int h = 0; h < 8; ++h) EXPECT_EQ(twelve[static_cast<std::size_t>(h)], -std::exp2(-1 - h));
  for (int h = 8; h < 12; ++h)
    EXPECT_EQ(twelve[static_cast<std::size_t>(h)], -std::exp2(-0.5 - (h - 8)));
}

TEST(DefaultLogDecay, OfRetentionIsExactWhereTheDecayRoundsToOne) {
  const std::vector<double> decays = default_log_decay(Module::kRetention, 64);
  ASSERT_EQ(decays.size(), 64u);
  EXPECT_DOUBLE_EQ(std::exp(decays[0]), 1 - 1.0 / 32);
  EXPECT_DOUBLE_EQ(std::exp(decays[3]), 1 - 1.0 / 256);
  EXPECT_DOUBLE_EQ(decays[63], -std::exp2(-68));  // log(1 - x) = -x to 1e-20
}

TEST(DefaultLogDecay, IsNegativeForEveryHead) {
  for (const Module module : {Module::kLightning, Module::kRetention}) {
    for (std::int64_t H = 1; H <= 130; ++H) {
      const std::vector<double> decays = default_log_decay(module, H);
      ASSERT_EQ(std::ssize(decays), H);
      for (const double decay : decays) EXPECT_TRUE(decay < 0 && decay >= -1) << decay;
    }
  }
}

Problem linear(Module module) {
  Problem problem;
  problem.shape = {.B = 2, .N = 5, .H = 4, .G = 2, .D = 3, .E = 3};
  problem.mask.causal = true;
  problem.module = module;
  problem.epsilon = default_epsilon(module);
  return problem;
}

Problem stack(const std::string& layers) {
  Problem problem = linear(Module::kRetention);
  problem.layers = layers;
  problem.scale = 0.5;
  return problem;
}

TEST(LayerOf, IsLinearOrSoftmaxAttentionOfTheSameShape) {
  const Problem whole = stack("LN");
  const Problem first = layer_of(whole, 0), second = layer_of(whole, 1);
  EXPECT_EQ(first.family(), Family::kLinear);
  EXPECT_EQ(first.module, Module::kRetention);
  EXPECT_EQ(second.family(), Family::kSoftmax);
  for (const Problem& layer : {first, second}) {
    EXPECT_EQ(layer.shape, whole.shape);
    EXPECT_EQ(layer.scale, 0.5);
    EXPECT_TRUE(layer.mask.causal);
    EXPECT_EQ(layer.layer_count(), 1);
    EXPECT_EQ(complaint([&] { validate(layer); }), "");
  }
}

TEST(Validate, AcceptsEveryModuleInBothDirectionsAndStacksOfThree) {
  for (const Module module : kModules) {
    Problem problem = linear(module);
    EXPECT_EQ(complaint([&] { validate(problem); }), "");
    problem.mask.causal = false;
    EXPECT_EQ(complaint([&] { validate(problem); }), "");
    problem = stack("LNL");
    problem.module = module;
    const bool allowed = decay_of(module) != Decay::kPerChannel && !is_normalised(module);
    EXPECT_EQ(complaint([&] { validate(problem); }).empty(), allowed) << name_of(module);
  }
}

struct Refused {
  const char* says;
  Problem problem;
  std::function<void(Problem&)> change;
};

TEST(Validate, RefusesWhatTheModuleOrTheStackCannotDo) {
  const std::vector<Refused> all{
      {"no window", linear(Module::kGla), [](Problem& p) { p.mask.window = 2; }},
      {"no window", stack("LN"), [](Problem& p) { p.mask.window = 2; }},
      {"causal", linear(Module::kBased),
       [](Problem& p) {
         p.mask.window = 2;
         p.mask.causal = false;
       }},
      {"allowed: 1", linear(Module::kBased), [](Problem& p) { p.scale = 2; }},
      {"no normaliser", linear(Module::kBasic), [](Problem& p) { p.epsilon = 1; }},
      {"epsilon = -1", linear(Module::kRebased), [](Problem& p) { p.epsilon = -1; }},
      {"epsilon = nan", linear(Module::kRebased), [](Problem& p) { p.epsilon = std::nan(""); }},
      {"no module", linear(Module::kBasic),
       [](Problem& p) {
         p.projected = 2;
         p.mask = {};
       }},
      {"needs the module", stack("LN"), [](Problem& p) { p.module.reset(); }},
      {"E = 4", stack("LN"), [](Problem& p) { p.shape.E = 4; }},
      {"is causal", stack("LN"), [](Problem& p) { p.mask.causal = false; }},
      {"no stack", stack("LN"), [](Problem& p) { p.layers = "ln"; }},
      {"64 letters", stack("LN"), [](Problem& p) { p.layers = std::string(65, 'N'); }},
  };
  for (const auto& [says, problem, change] : all) {
    EXPECT_EQ(complaint([&] { validate(problem); }), "") << says;
    Problem changed = problem;
    change(changed);
    EXPECT_TRUE(has(complaint([&] { validate(changed); }), says))
        << says << ": " << complaint([&] { validate(changed); });
  }
}

Inputs inputs_of(const Problem& problem) {
  const auto [B, N, H, G, D, E] = problem.shape;
  Inputs inputs;
  inputs.q = HostTensor(DType::kF32, {B, N, H, D});
  inputs.k = HostTensor(DType::kF32, {B, N, G * problem.layer_count(), D});
  inputs.v = HostTensor(DType::kF32, {B, N, G * problem.layer_count(), E});
  return inputs;
}

TEST(Validate, WantsTheDecaysOfTheModule) {
  const auto says = [](Module module, HostTensor decay) {
    const Problem problem = linear(module);
    Inputs inputs = inputs_of(problem);
    inputs.log_decay = std::move(decay);
    return complaint([&] { validate(problem, inputs); });
  };
  const auto third = [](double value) {
    HostTensor decay(DType::kF32, {4});
    decay.set(2, value);
    return decay;
  };
  EXPECT_EQ(says(Module::kBasic, {}), "");
  EXPECT_EQ(says(Module::kRetention, third(0)), "");
  EXPECT_EQ(says(Module::kLightning, third(-3)), "");
  EXPECT_EQ(says(Module::kGla, HostTensor(DType::kF32, {2, 5, 4, 3})), "");
  EXPECT_TRUE(has(says(Module::kGla, {}), "log_decay is missing"));
  EXPECT_TRUE(has(says(Module::kRetention, {}), "log_decay is missing"));
  EXPECT_TRUE(has(says(Module::kGla, third(0)), "expected [2, 5, 4, 3]"));
  EXPECT_TRUE(has(says(Module::kRetention, HostTensor(DType::kF64, {4})), "expected f32"));
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double bad : {1e-30, 1.0, std::nan(""), kInfinity, -kInfinity}) {
    EXPECT_TRUE(has(says(Module::kRetention, third(bad)), "at element 2; allowed: finite")) << bad;
  }
}

TEST(Validate, WantsTheParametersOfRebased) {
  const Problem problem = linear(Module::kRebased);
  Inputs inputs = inputs_of(problem);
  EXPECT_TRUE(has(complaint([&] { validate(problem, inputs); }), "gamma is missing"));
  inputs.gamma = HostTensor(DType::kF32, {3});
  EXPECT_TRUE(has(complaint([&] { validate(problem, inputs); }), "beta is missing"));
  inputs.beta = HostTensor(DType::kF32, {4});
  EXPECT_TRUE(has(complaint([&] { validate(problem, inputs); }), "beta has shape [4]"));
  inputs.beta = HostTensor(DType::kF32, {3});
  EXPECT_EQ(complaint([&] { validate(problem, inputs); }), "");
}

TEST(Validate, WantsKeysOfEveryLayer) {
  const Problem problem = stack("LNN");
  Inputs inputs = inputs_of(problem);
  inputs.log_decay = HostTensor(DType::kF32, {4});
  EXPECT_EQ(complaint([&] { validate(problem, inputs); }), "");
  inputs.v = HostTensor(DType::kF32, {2, 5, 2, 3});
  EXPECT_TRUE(has(complaint([&] { validate(problem, inputs); }), "expected [2, 5, 6, 3]"));
}

}  // namespace
}  // namespace sp
