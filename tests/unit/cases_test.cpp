// The generator of problems: what it draws, what it honours, and how small it makes a failure.
// SPDX-License-Identifier: Apache-2.0
#include "harness/generate/cases.hpp"

#include <gtest/gtest.h>

#include <map>

namespace sp {
namespace {

constexpr std::uint64_t kSeed = 11;
constexpr int kTries = 60;  // those of `seqpar verify`

Case drawn_case(const Pins& pins, std::uint64_t index, Family family = Family::kSoftmax) {
  Case drawn;
  find_failure(pins, family, kSeed, index, 0, [&](const Case& each) {
    drawn = each;
    return false;
  });
  return drawn;
}

TEST(Cases, CoverEveryCornerInAThousandDraws) {
  std::map<std::string, int> count;
  for (std::uint64_t index = 0; index < 1000; ++index) {
    const Case drawn = drawn_case({}, index);
    EXPECT_NO_THROW(validate(drawn.problem)) << describe(drawn);
    const Problem& problem = drawn.problem;
    const Shape& s = problem.shape;
    const std::int64_t P = drawn.world.size;
    EXPECT_EQ(P % drawn.world.node_size, 0);
    const auto seen = [&](bool condition, const std::string& what) {
      count[what] += condition ? 1 : 0;
    };
    for (const std::int64_t N : {0, 1}) seen(s.N == N, "N=" + std::to_string(N));
    seen(P > 2 && s.N == P - 1, "N=P-1");
    seen(P > 1 && s.N == P, "N=P");
    seen(P > 1 && s.N == P + 1, "N=P+1");
    seen(s.N < P && s.N > 1, "1<N<P");
    seen(s.N % P != 0, "P does not divide N");
    seen(P == 1, "P=1");
    seen(P == 16, "P=16");
    seen(s.B == 0, "B=0");
    seen(s.B == 2, "B=2");
    seen(s.G < s.H && s.G > 1, "grouped heads");
    seen(s.G == 1 && s.H > 1, "one key head");
    seen(s.D != s.E, "D!=E");
    seen(s.D % 8 != 0 && s.D > 8, "odd head size");
    seen(problem.mask.causal, "causal");
    seen(!problem.mask.causal, "not causal");
    seen(problem.mask.window > 0 && problem.mask.window < s.N, "window");
    seen(!problem.mask.segment_ids.empty(), "segments");
    seen(problem.mask.causal && problem.mask.window > 0 && !problem.mask.segment_ids.empty(),
         "all mask terms");
    seen(s.H % P == 0 && s.G % P == 0 && P > 1, "heads divide over ranks");
    seen(drawn.world.node_size > 1 && drawn.world.node_size < P, "nodes of several ranks");
    seen(true, std::string(name_of(problem.dtype)));
    seen(true, name_of(drawn.values));
  }
  for (const auto& [what, times] : count) {
    RecordProperty(what, times);
    EXPECT_GE(times, 10) << what << " in " << times << " of 1000 draws";
  }
  EXPECT_EQ(count.size(), 22u + 4u + 7u) << "a type or a kind of values is never drawn";
}

TEST(Cases, AreTheSameForTheSameSeedAndIndex) {
  for (std::uint64_t index = 0; index < 20; ++index) {
    const Case one = drawn_case({}, index), other = drawn_case({}, index);
    EXPECT_EQ(describe(one), describe(other));
    EXPECT_EQ(one.value_seed, other.value_seed);
  }
  EXPECT_NE(drawn_case({}, 0).value_seed, drawn_case({}, 1).value_seed);
}

TEST(Cases, HonourEveryPin) {
  Pins pins;
  pins.ranks = {6};
  pins.ranks_per_node = 3;
  pins.batch = 3;
  pins.tokens = 41;
  pins.heads = 12;
  pins.kv_heads = 4;
  pins.head_size = 10;
  pins.value_head_size = 14;
  pins.window = 9;
  pins.causal = true;
  pins.segments = true;
  pins.dtype = DType::kF16;
  pins.values = Values::kHugeScores;
  for (std::uint64_t index = 0; index < 50; ++index) {
    const Case drawn = drawn_case(pins, index);
    EXPECT_EQ(drawn.problem.shape, (Shape{3, 41, 12, 4, 10, 14}));
    EXPECT_EQ(drawn.world.size, 6);
    EXPECT_EQ(drawn.world.node_size, 3);
    EXPECT_EQ(drawn.problem.mask.window, 9);
    EXPECT_TRUE(drawn.problem.mask.causal);
    EXPECT_EQ(std::ssize(drawn.problem.mask.segment_ids), 3 * 41);
    EXPECT_EQ(drawn.problem.dtype, DType::kF16);
    EXPECT_EQ(drawn.values, Values::kHugeScores);
  }
  Pins projected;
  projected.projected = 7;
  EXPECT_EQ(drawn_case(projected, 0, Family::kProjectedSoftmax).problem.projected, 7);
  Pins few;
  few.most_ranks = 3;
  for (std::uint64_t index = 0; index < 50; ++index)
    EXPECT_LE(drawn_case(few, index).world.size, 3);
}

TEST(Cases, DrawnWithOneHeadCountPinnedAreValid) {
  for (const std::int64_t heads : {1, 7, 12}) {
    Pins of_queries, of_keys;
    of_queries.heads = heads;
    of_keys.kv_heads = heads;
    for (std::uint64_t index = 0; index < 50; ++index) {
      EXPECT_NO_THROW(validate(drawn_case(of_queries, index).problem));
      EXPECT_NO_THROW(validate(drawn_case(of_keys, index).problem));
    }
  }
}

TEST(Inputs, MatchTheirProblemWhateverIsDrawn) {
  for (const Family family :
       {Family::kSoftmax, Family::kProjectedSoftmax, Family::kLinear, Family::kHybrid}) {
    for (std::uint64_t index = 0; index < 100; ++index) {
      const Case drawn = drawn_case({}, index, family);
      EXPECT_NO_THROW(validate(drawn.problem, make_inputs(drawn))) << describe(drawn);
    }
  }
}

// The failure that is planted here needs 3 ranks, 5 tokens and a causal mask, and nothing else.
TEST(Shrinking, ReachesTheSmallestCaseThatFails) {
  const auto fails = [](const Case& drawn) {
    return drawn.world.size >= 3 && drawn.problem.shape.N >= 5 && drawn.problem.mask.causal;
  };
  int found = 0;
  for (std::uint64_t index = 0; index < 50; ++index) {
    const std::optional<Case> smallest =
        find_failure({}, Family::kSoftmax, kSeed, index, kTries, fails);
    if (!smallest) continue;
    ++found;
    const Problem& problem = smallest->problem;
    EXPECT_EQ(smallest->world.size, 3) << describe(*smallest);
    EXPECT_EQ(problem.shape, (Shape{1, 5, 1, 1, 1, 1})) << describe(*smallest);
    EXPECT_EQ(problem.mask.window, 0);
    EXPECT_TRUE(problem.mask.segment_ids.empty());
    EXPECT_EQ(problem.dtype, DType::kF32);
    EXPECT_EQ(smallest->values, Values::kNormal);
  }
  EXPECT_GE(found, 10);
}

// Whatever a fault needs stays, and nothing beside it: here each term of a problem alone.
TEST(Shrinking, KeepsWhatTheFailureNeedsAlone) {
  struct Need {
    const char* what;
    bool (*has)(const Case&);
  };
  const Need needs[] = {
      {"window", [](const Case& c) { return c.problem.mask.window > 0; }},
      {"documents", [](const Case& c) { return c.problem.mask.segment_ids.size() > 1; }},
      {"bf16", [](const Case& c) { return c.problem.dtype == DType::kBF16; }},
      {"huge scores", [](const Case& c) { return c.values == Values::kHugeScores; }},
      {"two batches", [](const Case& c) { return c.problem.shape.B == 2; }},
      {"groups", [](const Case& c) { return c.problem.shape.H > c.problem.shape.G; }},
      {"nodes", [](const Case& c) { return c.world.node_size > 1; }},
      {"splits", [](const Case& c) { return c.world.splits > 1; }},
      {"300 tokens", [](const Case& c) { return c.problem.shape.N >= 300; }},
  };
  for (const Need& need : needs) {
    int found = 0;
    for (std::uint64_t index = 0; index < 60; ++index) {
      const auto smallest = find_failure(
          {}, Family::kSoftmax, kSeed, index, kTries,
          [&](const Case& drawn) { return need.has(drawn) && drawn.problem.shape.N > 0; });
      if (!smallest) continue;
      ++found;
      int kept = 0;
      for (const Need& other : needs) kept += other.has(*smallest) ? 1 : 0;
      EXPECT_TRUE(need.has(*smallest));
      EXPECT_EQ(kept, 1) << need.what << ": " << describe(*smallest);
      EXPECT_FALSE(smallest->problem.mask.causal) << describe(*smallest);
      EXPECT_EQ(smallest->problem.shape.D, 1) << describe(*smallest);
      EXPECT_EQ(smallest->problem.shape.E, 1) << describe(*smallest);
      EXPECT_LE(smallest->world.size, 2) << describe(*smallest);
    }
    EXPECT_GT(found, 0) << need.what;
  }
}

TEST(Shrinking, TriesNoMoreCasesThanItMay) {
  int tried = 0;
  const auto fails = [&](const Case&) {
    ++tried;
    return tried == 1;  // shrinks of the first failure all pass
  };
  ASSERT_TRUE(find_failure({}, Family::kSoftmax, kSeed, 5, 7, fails));
  EXPECT_LE(tried, 8);
  EXPECT_FALSE(find_failure({}, Family::kSoftmax, kSeed, 5, 7, [](const Case&) { return false; }));
}

}  // namespace
}  // namespace sp
