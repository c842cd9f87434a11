// Every algorithm against the double reference on random problems, and against itself: repeated,
// and on a machine that delays and reorders.
// SPDX-License-Identifier: Apache-2.0
#include "harness/run/verify.hpp"
#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

#ifdef SP_SANITIZED
constexpr std::int64_t kCases = 20, kCasesPerModule = 5;
#else
constexpr std::int64_t kCases = 40, kCasesPerModule = 10;
#endif

// Algorithms of linear attention and stacks meet every module that they serve.
void expect_verified(const Algorithm* algorithm, std::uint64_t seed, const Rig& rig) {
  VerifyOptions options;
  options.algorithms = {algorithm};
  options.seed = seed;
  options.per_module = modules_of(*algorithm).front().has_value();
  options.cases = options.per_module ? kCasesPerModule : kCases;
  options.rig = rig;
#ifdef SP_SANITIZE_THREAD
  options.pins.longest = 0;  // more tokens compute longer and meet no oftener
#endif
  std::int64_t rows = 0;
  for (const AlgorithmReport& report : verify(threads(), options)) {
    if (!report.refusal.empty()) continue;
    ++rows;
    EXPECT_FALSE(report.failure) << report.failure->message;
    EXPECT_EQ(report.cases, options.cases)
        << "refused " << report.skipped << ": " << report.skip_reason;
  }
  EXPECT_EQ(rows, std::ssize(modules_of(*algorithm)));
}

class Equivalence : public Everyone {};

TEST_P(Equivalence, HoldsOnRandomProblems) { expect_verified(GetParam(), 1, {}); }

TEST_P(Equivalence, HoldsOnRandomProblemsInCheckedModeWithPoisonedMemory) {
  Rig rig;
  rig.checked = true;
  rig.fence = Fence::kPoisonAndCanary;
  expect_verified(GetParam(), 2, rig);
}

INSTANTIATE_TEST_SUITE_P(Registry, Equivalence, testing::ValuesIn(algorithms()), id_of);

class Chaos : public Everyone {};

constexpr int kProblems = 12;
constexpr int kSchedules = 4;  // per problem

// Results must not depend on when messages start and arrive: no tolerance.
TEST_P(Chaos, LeavesEveryBitAsItWas) {
  const Algorithm& algorithm = *GetParam();
  Pins pins;
  pins.ranks = {2, 3, 4, 5};
  pins.head_size = 8;
#ifdef SP_SANITIZED
  pins.longest = 0;  // more tokens compute longer and meet no oftener
#endif
  int problems = 0;
  for (std::uint64_t index = 0; problems < kProblems; ++index) {
    const sp::Case drawn = drawn_case(pins, algorithm.family, 3, index);
    if (!algorithm.supports(drawn.problem, drawn.world)) continue;
    ++problems;
    const Inputs inputs = make_inputs(drawn);
    const Outputs calm = run(algorithm, drawn.problem, inputs, drawn.world);
    for (std::uint64_t seed = 0; seed < kSchedules; ++seed) {
      Rig rig;
      rig.chaos = index * kSchedules + seed;
      rig.checked = seed == 0;
      const Outputs chaotic = run(algorithm, drawn.problem, inputs, drawn.world, rig);
      ASSERT_TRUE(same_bits(chaotic, calm)) << describe(drawn) << " chaos " << *rig.chaos;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, Chaos, testing::ValuesIn(algorithms()), id_of);

TEST(Chaos, RunsAThousandSchedulesOverAllAlgorithms) {
  EXPECT_GE(kProblems * kSchedules * std::ssize(algorithms()), 1000);
}

class Reproducibility : public EachSubject {};

TEST_P(Reproducibility, OfTwoRunsIsBitwise) {
  for (const World world : {World{4, 2}, World{7, 7, 3}, World{16, 4}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      Pins pins;
      pins.ranks = {world.size};
      pins.ranks_per_node = world.node_size;
      pins.splits = world.splits;
      pins.batch = 1;
      pins.tokens = 53;
      pins.head_size = 16;
      pins.dtype = dtype;
      pins.module = GetParam().module;
      if (GetParam().module) {
        pins.causal = true;
        pins.window = 0;
      }
      sp::Case drawn;
      for (const int heads : {4, 16 * 7}) {  // the latter where the world must divide them
        pins.heads = pins.kv_heads = heads;
        drawn = drawn_case(pins, algorithm().family, 4, 0);
        if (algorithm().supports(drawn.problem, world)) break;
      }
      ASSERT_TRUE(algorithm().supports(drawn.problem, world));
      const Inputs inputs = make_inputs(drawn);
      const Outputs first = run(algorithm(), drawn.problem, inputs, world);
      EXPECT_TRUE(same_bits(run(algorithm(), drawn.problem, inputs, world), first))
          << describe(drawn);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, Reproducibility, testing::ValuesIn(subjects()), subject_of);

}  // namespace
}  // namespace sp::test
