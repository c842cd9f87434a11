// What simulated ranks do is what ranks on threads do, what dry runs do and what cost() says, to the
// byte; and every algorithm is simulated at full size in seconds.
// SPDX-License-Identifier: Apache-2.0
#include <ctime>

#include "harness/run/distribute.hpp"
#include "harness/run/dry_run.hpp"
#include "harness/run/phantom.hpp"
#include "tests/property/everyone.hpp"
#include "tests/simulated/sim_fixture.hpp"

namespace sp {

static void PrintTo(const PassCost& cost, std::ostream* os) {
  *os << cost.bytes_sent << " bytes in " << cost.messages_sent << " messages, " << cost.flops
      << " flops";
}
static void PrintTo(const MeasuredPass& pass, std::ostream* os) {
  PrintTo(static_cast<const PassCost&>(pass), os);
  *os << ", peak " << pass.peak_bytes;
}

}  // namespace sp

namespace sp::test {
namespace {

class SimTraffic : public EachSubject {};

TEST_P(SimTraffic, IsThatOfThreadsOfDryRunsAndOfCost) {
  int worlds = 0;
  for (const World& world : {World{1}, World{2, 2}, World{3, 1, 2}, World{4, 2}, World{8, 4}}) {
    Pins pins;
    pins.ranks = {world.size};
    pins.ranks_per_node = world.node_size;
    pins.splits = world.splits;
    pins.batch = 2;
    pins.tokens = 37;
    pins.heads = GetParam().module ? 4 : 24;
    pins.kv_heads = pins.heads;
    pins.head_size = 8;
    pins.module = GetParam().module;
    if (GetParam().module) {
      pins.causal = true;
      pins.window = 0;
    }
    const sp::Case drawn = drawn_case(pins, algorithm().family, 5, 0);
    if (!algorithm().supports(drawn.problem, world)) continue;
    ++worlds;
    const Execution real =
        execute(threads(), {}, algorithm(), drawn.problem, make_inputs(drawn), world);
    const Prediction simulated = simulate(cluster_of(8), algorithm(), drawn.problem, world);
    ASSERT_EQ(simulated.status, RowStatus::kOk) << simulated.reason;
    const Layout layout(algorithm().sharding, drawn.problem.shape.N, world.size);
    for (int rank = 0; rank < world.size; ++rank) {
      SCOPED_TRACE(describe(drawn) + " rank " + std::to_string(rank));
      const Measured& mine = simulated.ranks[static_cast<std::size_t>(rank)];
      const Measured& threads_did = real.ranks[static_cast<std::size_t>(rank)];
      EXPECT_EQ(mine.forward, threads_did.forward);
      EXPECT_EQ(mine.backward, threads_did.backward);
      const Cost cost = algorithm().cost(drawn.problem, layout, world, rank);
      EXPECT_EQ(static_cast<const PassCost&>(mine.forward), cost.forward);
      EXPECT_EQ(static_cast<const PassCost&>(mine.backward), cost.backward);
      const DryRun dry = dry_run(algorithm(), drawn.problem, world, rank);
      EXPECT_EQ(mine.forward, dry.forward.done);
      EXPECT_EQ(mine.backward, dry.backward.done);
    }
  }
  EXPECT_GE(worlds, 3);
}

TEST_P(SimTraffic, IsThatOfShardsLikeTheRealOnes) {
  Pins pins;
  pins.tokens = 11;
  pins.module = GetParam().module;
  const sp::Case drawn = drawn_case(pins, algorithm().family, 6, 0);
  const Layout layout(algorithm().sharding, 11, 3);
  const Inputs inputs = make_inputs(drawn);
  for (int rank = 0; rank < 3; ++rank) {
    CpuMemory memory;
    PhantomMemory nowhere(PhantomMemory::kUnlimited, 0);
    const Shards real = scatter(drawn.problem, inputs, layout, rank, memory);
    const Shards phantom = phantom_shards(drawn.problem, layout, rank, nowhere);
    const auto expect_alike = [](const Tensor& a, const Tensor& b) {
      ASSERT_EQ(a.defined(), b.defined());
      EXPECT_EQ(a.shape(), b.shape());
      if (!a.defined()) return;
      EXPECT_EQ(a.dtype(), b.dtype()) << a.name();
    };
    expect_alike(phantom.q, real.q);
    expect_alike(phantom.k, real.k);
    expect_alike(phantom.v, real.v);
    expect_alike(phantom.mask.segments, real.mask.segments);
    expect_alike(phantom.projection_k, real.projection_k);
    expect_alike(phantom.projection_v, real.projection_v);
    expect_alike(phantom.log_decay, real.log_decay);
    expect_alike(phantom.gamma, real.gamma);
    expect_alike(phantom.beta, real.beta);
    expect_alike(phantom_d_out(drawn.problem, layout, rank, nowhere),
                 scatter(inputs.d_out, layout.tokens(rank), memory, "d_out"));
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, SimTraffic, testing::ValuesIn(subjects()), subject_of);

class FullSize : public Everyone {};

TEST_P(FullSize, OfSixtyFourRanksAndTwoMillionTokensTakesSeconds) {
#ifdef SP_SANITIZED
  constexpr double kLimit = 60;
  constexpr int kRanks = 16;  // the promise is of release builds
#else
  constexpr double kLimit = 5;
  constexpr int kRanks = 64;
#endif
  const Algorithm& algorithm = *GetParam();
  Platform platform = cluster_of(8);
  platform.fabric = {8, 8, kPort, kLatency};
  SimulationOptions options;
  options.unlimited_memory = true;
  const std::clock_t begin = std::clock();  // of the processor: the machine may be busy
  const Prediction prediction =
      simulate(platform, algorithm, problem_of(algorithm, {1, 2 << 20, 64, 64, 128, 128}),
               {kRanks, 8, 1}, options);
  const double taken = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  ASSERT_EQ(prediction.status, RowStatus::kOk) << prediction.reason;
  EXPECT_GT(prediction.backward.time_s, 0);
  EXPECT_LT(taken, kLimit);
}

INSTANTIATE_TEST_SUITE_P(Registry, FullSize, testing::ValuesIn(algorithms()), id_of);

}  // namespace
}  // namespace sp::test
