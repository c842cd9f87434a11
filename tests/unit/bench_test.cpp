// Timing algorithms: what is counted, what is refused, and the numbers made of it.
//
// SPDX-License-Identifier: Apache-2.0
#include "harness/run/bench.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <new>
#include <thread>

#include "harness/run/cores.hpp"
#include "harness/run/dry_run.hpp"
#include "harness/run/waiting.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp {
namespace {

using std::chrono::milliseconds;

constexpr auto kPause = milliseconds(100);  // far above what a busy machine adds

const Algorithm& all_gather() { return *find_algorithm("allgather"); }

Case case_of(int ranks) {
  Problem problem;
  problem.shape = {1, 40, 4, 2, 8, 8};
  problem.mask.causal = true;
  problem.scale = default_scale(problem.shape);
  return {.problem = problem, .world = {ranks, 1}, .value_seed = 7};
}

BenchRow run(const Algorithm& algorithm, int ranks, const BenchOptions& options = {1, 3}) {
  const auto backend = make_thread_backend();
  const Case drawn = case_of(ranks);
  return bench(*backend, algorithm, drawn, make_inputs(drawn), options);
}

TEST(Bench, MeasuresEveryRepetitionAndWhatCostPredicts) {
  const Algorithm& ring = *find_algorithm("ring/zigzag");
  const BenchRow row = run(ring, 3);
  ASSERT_EQ(row.status, RowStatus::kOk) << row.reason;
  EXPECT_EQ(row.variant(), "ring/zigzag/thread");
  EXPECT_LE(row.worst_ratio, 1);
  EXPECT_EQ(row.busy_imbalance.size(), 3u);
  ASSERT_EQ(row.passes.size(), 2u);
  const Case drawn = case_of(3);
  const Layout layout(ring.sharding, drawn.problem.shape.N, 3);
  for (const std::size_t pass : {0u, 1u}) {
    const PassRecord& record = row.passes[pass];
    EXPECT_EQ(record.time_s.size(), 3u);
    EXPECT_EQ(record.cpu_s.size(), 3u);
    for (std::size_t i = 0; i < record.time_s.size(); ++i) {
      EXPECT_GT(record.time_s[i], 0);
      EXPECT_GT(record.waiting_s[i], 0);
      EXPECT_LE(record.waiting_s[i], record.time_s[i]);
    }
    std::int64_t bytes = 0, messages = 0, peak = 0, flops = 0;
    for (int rank = 0; rank < 3; ++rank) {
      const Cost cost = ring.cost(drawn.problem, layout, drawn.world, rank);
      const PassCost& predicted = pass == 0 ? cost.forward : cost.backward;
      bytes = std::max(bytes, predicted.bytes_sent);
      messages = std::max(messages, predicted.messages_sent);
      const DryRun dry = dry_run(ring, drawn.problem, drawn.world, rank);
      peak = std::max(peak, (pass == 0 ? dry.forward : dry.backward).done.peak_bytes);
      flops += predicted.flops;
    }
    EXPECT_EQ(record.bytes_sent, bytes);
    EXPECT_EQ(record.messages_sent, messages);
    EXPECT_EQ(record.peak_bytes, peak);
    EXPECT_EQ(record.flops, flops);
  }
}

TEST(Bench, ForwardAloneHasOnePass) {
  const auto backend = make_thread_backend();
  const Case drawn = case_of(2);
  Inputs inputs = make_inputs(drawn);
  inputs.d_out = {};
  const BenchRow row = bench(*backend, all_gather(), drawn, inputs, {0, 2, false});
  EXPECT_EQ(row.status, RowStatus::kOk) << row.reason;
  EXPECT_EQ(row.passes.size(), 1u);
}

TEST(Bench, TellsNoTimeOfAWrongAlgorithm) {
  Algorithm wrong = all_gather();
  wrong.forward = [](Context& ctx, const Shards& in) {
    Forward result = all_gather().forward(ctx, in);
    ctx.kernels.fill(result.out, 0);
    return result;
  };
  const BenchRow row = run(wrong, 2);
  EXPECT_EQ(row.status, RowStatus::kFailed);
  EXPECT_NE(row.reason.find("out"), std::string::npos) << row.reason;
  EXPECT_TRUE(row.passes.empty());
  EXPECT_TRUE(std::isnan(score(row).total.median));
}

TEST(Bench, ARefusalIsASkippedRowWithTheSentence) {
  const BenchRow row = run(*find_algorithm("ulysses"), 3);
  EXPECT_EQ(row.status, RowStatus::kSkipped);
  EXPECT_NE(row.reason.find("P = 3"), std::string::npos) << row.reason;
  EXPECT_TRUE(row.passes.empty());
}

TEST(Bench, RunningOutOfMemoryIsARow) {
  Algorithm greedy = all_gather();
  greedy.forward = [](Context& ctx, const Shards& in) {
    // Enough for the check, not for the whole problem.
    if (in.problem.shape.N == case_of(2).problem.shape.N) throw std::bad_alloc();
    return all_gather().forward(ctx, in);
  };
  const BenchRow row = run(greedy, 2);
  EXPECT_EQ(row.status, RowStatus::kOom);
  EXPECT_TRUE(row.passes.empty());
}

TEST(Bench, AFailureOfTheWholeProblemIsAFailedRow) {
  Algorithm faulty = all_gather();
  faulty.backward = [](Context& ctx, const Shards& in, const Forward& forward, const Tensor& d) {
    if (in.problem.shape.N == case_of(2).problem.shape.N)
      throw Error(ErrorKind::kInternal, "a long problem");
    return all_gather().backward(ctx, in, forward, d);
  };
  const BenchRow row = run(faulty, 2);
  EXPECT_EQ(row.status, RowStatus::kFailed);
  EXPECT_NE(row.reason.find("a long problem"), std::string::npos) << row.reason;
  EXPECT_TRUE(row.passes.empty());
}

TEST(Bench, SeesWhichRankIsBusyAndThatTheOthersWait) {
  Algorithm uneven = all_gather();
  uneven.forward = [](Context& ctx, const Shards& in) {
    if (ctx.comm.rank() == 0) std::this_thread::sleep_for(kPause);
    return all_gather().forward(ctx, in);
  };
  const BenchRow row = run(uneven, 2, {1, 3, false});
  ASSERT_EQ(row.status, RowStatus::kOk) << row.reason;
  const double pause = std::chrono::duration<double>(kPause).count();
  for (const double time : row.passes[0].time_s) EXPECT_GE(time, pause);
  // Rank 1 waits while rank 0 sleeps: half of it in the mean, less its own short work.
  EXPECT_GT(score(row).exposed_percent, 20);
  EXPECT_LT(score(row).exposed_percent, 80);
  EXPECT_GT(score(row).busy_imbalance, 1.5);
  EXPECT_LE(score(row).busy_imbalance, 2);
}

TEST(Bench, ChecksTheSameKindOfProblemWithFewTokens) {
  Case drawn = case_of(3);
  drawn.problem.shape.N = 1000;
  const Case small = short_case(drawn);
  EXPECT_EQ(small.problem.shape.N, 15);
  EXPECT_EQ(small.problem.shape.H, 4);
  EXPECT_TRUE(small.problem.mask.causal);
  EXPECT_EQ(small.world.size, 3);
  drawn.problem.shape.N = 2;
  EXPECT_EQ(short_case(drawn).problem.shape.N, 2);
}

TEST(Waiting, CountsTheWaitsOfARankAndOfItsGroups) {
  const auto backend = make_thread_backend();
  for (const bool in_group : {false, true}) {
    backend->run(2, {}, [&](Machine& machine) {
      WaitingCommunicator outer(machine.comm);
      Communicator& comm = in_group ? outer.channel("all") : outer;
      const Tensor token = machine.memory.allocate(DType::kF32, {1, 1, 1, 1}, "token");
      const auto before = outer.waited();
      const auto begin = std::chrono::steady_clock::now();
      if (comm.rank() == 0) std::this_thread::sleep_for(kPause);
      Pending pending = comm.exchange({{1 - comm.rank(), token, {"token", 0}}},
                                      {{1 - comm.rank(), token, {"token", 0}}});
      pending.wait();
      const auto waited = outer.waited() - before;
      if (comm.rank() == 1) {
        EXPECT_GE(waited, kPause / 2);
      } else {
        EXPECT_LE(waited, std::chrono::steady_clock::now() - begin - kPause);
      }
    });
  }
}

TEST(Cores, AreThoseOfAllRanksOnAllHosts) {
  Placement first{.host = 1, .cpus = {0b0011}}, second{.host = 1, .cpus = {0b0110}};
  Placement elsewhere{.host = 2, .cpus = {0b0001, 0b1000}};
  EXPECT_EQ(usable_cores(std::array{first, first}), 2);
  EXPECT_EQ(usable_cores(std::array{first, second}), 3);
  EXPECT_EQ(usable_cores(std::array{first, second, elsewhere}), 5);
  EXPECT_EQ(usable_cores({}), 1);
  EXPECT_EQ(usable_cores(std::array{placement_of_this_thread()}),
            static_cast<int>(std::thread::hardware_concurrency()));
}

TEST(Summary, IsMedianHalfInterquartileRangeAndLeast) {
  const Summary summary = summarize({100, 2, 4, 1, 3});
  EXPECT_EQ(summary.median, 3);
  EXPECT_DOUBLE_EQ(summary.spread_percent, 100.0 / 3);  // quartiles 2 and 4
  EXPECT_EQ(summary.least, 1);
  EXPECT_EQ(summarize({1, 2}).median, 1.5);
  EXPECT_EQ(summarize({5}).spread_percent, 0);
  EXPECT_TRUE(std::isnan(summarize({}).median));
}

TEST(Score, ComparesWithOneRankDividedByRanksOrCores) {
  PassRecord forward{.time_s = {1, 2, 3}, .waiting_s = {0.5, 0.5, 0.5}, .flops = 30};
  PassRecord backward{.time_s = {3, 3, 3}, .waiting_s = {0.5, 0.5, 0.5}, .flops = 30};
  forward.bytes_sent = 7;
  backward.messages_sent = 2;
  BenchRow row{.ranks = 4, .cores = 2};
  row.passes = {forward, backward};
  EXPECT_TRUE(std::isnan(score(row).percent_of_ideal));
  row.one_rank = {{.time_s = {3}, .flops = 20}, {.time_s = {5}, .flops = 28}};
  const Score s = score(row);
  EXPECT_EQ(s.passes[0].median, 2);
  EXPECT_EQ(s.total.median, 5);
  EXPECT_DOUBLE_EQ(s.percent_of_ideal, 80);  // 8 s / 2 cores in 5 s
  EXPECT_DOUBLE_EQ(s.flops_ratio, 1.25);
  EXPECT_DOUBLE_EQ(s.exposed_percent, 20);
  EXPECT_DOUBLE_EQ(s.gflops, 60 / 5.0 / 1e9);
  EXPECT_EQ(s.bytes_sent, 7);
  EXPECT_EQ(s.messages_sent, 2);
  row.cores = 16;
  EXPECT_DOUBLE_EQ(score(row).percent_of_ideal, 40);
}

TEST(Score, TellsOfDevicesWhatTheirEventsMeasured) {
  PassRecord pass{.time_s = {2}, .waiting_s = {0.25}, .communicating_s = {1}};
  pass.bytes_sent = 3'000'000'000;
  pass.flops = 8'000'000'000'000;
  BenchRow row{.ranks = 4};
  row.cores = 4;
  row.passes = {pass};
  EXPECT_TRUE(std::isnan(score(row).percent_of_peak));
  row.peak_flops = 10e12;
  const Score s = score(row);
  EXPECT_DOUBLE_EQ(s.percent_of_peak, 10);
  EXPECT_DOUBLE_EQ(s.bus_bandwidth, 3e9);
  EXPECT_DOUBLE_EQ(s.overlap_percent, 75);
  row.cores = 1;  // which all four share
  EXPECT_DOUBLE_EQ(score(row).percent_of_peak, 40);
  row.passes.front().communicating_s = {};
  EXPECT_TRUE(std::isnan(score(row).overlap_percent));
}

}  // namespace
}  // namespace sp
