// The generator of linear problems and stacks: what it draws, honours and refuses.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

#include "harness/compare/linear_terms.hpp"
#include "harness/generate/cases.hpp"
#include "reference/evaluate.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr std::uint64_t kSeed = 11;
constexpr int kTries = 60;  // those of `seqpar verify`

Case drawn_case(const Pins& pins, std::uint64_t index, Family family) {
  Case drawn;
  find_failure(pins, family, kSeed, index, 0, [&](const Case& each) {
    drawn = each;
    return false;
  });
  return drawn;
}

// Every `what` that is seen in a thousand draws of a family, and how often.
template <class F>
std::map<std::string, int> seen_in_a_thousand(Family family, F&& note) {
  std::map<std::string, int> count;
  for (std::uint64_t index = 0; index < 1000; ++index) {
    const Case drawn = drawn_case({}, index, family);
    EXPECT_EQ(drawn.problem.family(), family) << describe(drawn);
    EXPECT_NO_THROW(validate(drawn.problem)) << describe(drawn);
    note(drawn, [&](bool condition, const std::string& what) { count[what] += condition ? 1 : 0; });
  }
  for (const auto& [what, times] : count)
    EXPECT_GE(times, 10) << what << " in " << times << " of 1000 draws";
  return count;
}

TEST(LinearCases, CoverEveryCornerInAThousandDraws) {
  const auto count = seen_in_a_thousand(Family::kLinear, [](const Case& drawn, auto&& seen) {
    const Problem& problem = drawn.problem;
    const Shape& s = problem.shape;
    const std::string module(name_of(*problem.module));
    const bool segments = !problem.mask.segment_ids.empty();
    seen(true, module);
    seen(problem.mask.causal, module + " causal");
    seen(!problem.mask.causal, module + " without a mask");
    seen(segments, module + " with segments");
    seen(s.N < drawn.world.size, module + " with empty chunks");
    seen(s.G < s.H, module + " with grouped heads");
    if (problem.module == Module::kBased) {
      seen(problem.mask.window > 0 && problem.mask.window < s.N, "window");
      seen(problem.mask.window > 0 && segments, "window and segments");
    }
    if (is_normalised(*problem.module))
      seen(problem.epsilon > default_epsilon(*problem.module), module + " with a large epsilon");
    if (decay_of(*problem.module) != Decay::kNone)
      seen(true, module + " with decays " + name_of(drawn.decays));
    if (!is_normalised(*problem.module))
      seen(drawn.values == Values::kIntegers, module + " exactly");
    seen(drawn.world.splits > 1, "splits");
    seen(drawn.world.splits > s.D, "more splits than channels");
    seen(true, std::string(name_of(problem.dtype)));
    seen(true, std::string("values ") + name_of(drawn.values));
  });
  EXPECT_EQ(count.size(), 6u * 6 + 2 + 2 + 3 * 4 + 4 + 2 + 4 + 5) << "a kind is never drawn";
}

TEST(StackCases, CoverEveryCornerInAThousandDraws) {
  const auto count = seen_in_a_thousand(Family::kHybrid, [](const Case& drawn, auto&& seen) {
    const Problem& problem = drawn.problem;
    seen(true, problem.layers);
    seen(true, std::string(name_of(*problem.module)));
    seen(!problem.mask.segment_ids.empty(), "segments");
    seen(problem.shape.N < drawn.world.size, "empty chunks");
    EXPECT_TRUE(problem.mask.causal);
    EXPECT_EQ(problem.shape.E, problem.shape.D);
  });
  EXPECT_EQ(count.size(), 7u + 3 + 2) << "a kind is never drawn";
}

// Then f32 sums are exact in whatever order: every product and every partial sum is an integer of
// at most 24 bits.
TEST(LinearCases, OfIntegersAreExact) {
  int exact = 0;
  for (std::uint64_t index = 0; index < 300; ++index) {
    Pins pins;
    pins.longest = 0;  // the terms are added up pair by pair
    const Case drawn = drawn_case(pins, index, Family::kLinear);
    EXPECT_EQ(drawn.exact(), drawn.values == Values::kIntegers) << describe(drawn);
    if (!drawn.exact()) continue;
    ++exact;
    EXPECT_FALSE(is_normalised(*drawn.problem.module)) << describe(drawn);
    EXPECT_EQ(drawn.problem.scale, 1) << describe(drawn);
    const Inputs inputs = make_inputs(drawn);
    for (std::int64_t n = 0; n < inputs.log_decay.size(); ++n)
      ASSERT_EQ(inputs.log_decay.at(n), 0) << describe(drawn);
    const Outputs results = reference::evaluate(drawn.problem, inputs);
    const Outputs sizes = linear_terms(drawn.problem, inputs, results);
    for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v}) {
      for (std::int64_t n = 0; n < (results.*x).size(); ++n) {
        ASSERT_EQ((results.*x).at(n), std::nearbyint((results.*x).at(n))) << describe(drawn);
        ASSERT_LT((sizes.*x).at(n), 0x1p24) << describe(drawn);
      }
    }
  }
  EXPECT_GE(exact, 30);
}

TEST(LinearCases, OfEveryKindOfDecaysAreLegalLogarithms) {
  for (const Module module : {Module::kLightning, Module::kRetention, Module::kGla}) {
    for (const Decays decays : {Decays::kRule, Decays::kNone, Decays::kStrong, Decays::kMixed}) {
      Pins pins;
      pins.module = module;
      pins.tokens = 40;
      pins.batch = 1;
      Case drawn = drawn_case(pins, 3, Family::kLinear);
      drawn.decays = decays;
      drawn.values = Values::kNormal;
      const HostTensor log_decay = make_inputs(drawn).log_decay;
      ASSERT_GT(log_decay.size(), 0);
      double least = 0, most = -1e300;
      for (std::int64_t n = 0; n < log_decay.size(); ++n) {
        least = std::min(least, log_decay.at(n));
        most = std::max(most, log_decay.at(n));
      }
      EXPECT_LE(most, 0);
      EXPECT_EQ(least == 0, decays == Decays::kNone);
      if (module == Module::kGla && decays == Decays::kMixed) {
        EXPECT_EQ(most, 0) << "some do not decay";
        EXPECT_EQ(std::exp(static_cast<float>(least)), 0.0f) << "some erase";
      }
    }
  }
}

TEST(LinearCases, HonourEveryPin) {
  Pins linear;
  linear.module = Module::kRetention;
  linear.splits = 5;
  linear.causal = false;
  for (std::uint64_t index = 0; index < 20; ++index) {
    const Case drawn = drawn_case(linear, index, Family::kLinear);
    EXPECT_EQ(drawn.problem.module, Module::kRetention);
    EXPECT_EQ(drawn.world.splits, 5);
    EXPECT_FALSE(drawn.problem.mask.causal);
  }
  Pins window;
  window.module = Module::kBased;
  window.causal = true;
  window.window = 6;
  EXPECT_EQ(drawn_case(window, 0, Family::kLinear).problem.mask.window, 6);
  Pins layers;
  layers.layers = "NNL";
  EXPECT_EQ(drawn_case(layers, 0, Family::kHybrid).problem.layers, "NNL");
}

TEST(StackCases, OfPinsThatContradictEachOtherAreRefused) {
  const auto refused = [](const Pins& pins, Family family) {
    for (std::uint64_t index = 0; index < 20; ++index)
      EXPECT_THROW(validate(drawn_case(pins, index, family).problem), Error);
  };
  for (const Module module : {Module::kGla, Module::kBased, Module::kRebased}) {
    Pins pins;  // no such stacks
    pins.module = module;
    refused(pins, Family::kHybrid);
  }
  for (const std::string& layers : {std::string("LXN"), std::string(65, 'L')}) {
    Pins pins;
    pins.layers = layers;
    refused(pins, Family::kHybrid);
  }
}

// Needs GLA, 2 ranks and 3 tokens: whatever else was drawn goes.
TEST(LinearCases, ShrinkToTheSmallestThatFails) {
  const auto fails = [](const Case& drawn) {
    return drawn.world.size >= 2 && drawn.problem.shape.N >= 3 &&
           drawn.problem.module == Module::kGla;
  };
  int found = 0;
  for (std::uint64_t index = 0; index < 50; ++index) {
    const std::optional<Case> smallest =
        find_failure({}, Family::kLinear, kSeed, index, kTries, fails);
    if (!smallest) continue;
    ++found;
    EXPECT_EQ(smallest->world.size, 2) << describe(*smallest);
    EXPECT_EQ(smallest->world.splits, 1) << describe(*smallest);
    EXPECT_EQ(smallest->problem.shape, (Shape{1, 3, 1, 1, 1, 1})) << describe(*smallest);
    EXPECT_TRUE(smallest->problem.mask.segment_ids.empty());
    EXPECT_EQ(smallest->decays, Decays::kRule);
    EXPECT_EQ(smallest->values, Values::kNormal);
  }
  EXPECT_GE(found, 3);
}

}  // namespace
}  // namespace sp
