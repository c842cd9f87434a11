// What the simulated cluster takes for kernels and messages, against closed forms.
// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/simulation.hpp"

#include <algorithm>
#include <cmath>

#include "harness/cluster/kernel_time.hpp"
#include "tests/property/everyone.hpp"
#include "tests/simulated/sim_fixture.hpp"

namespace sp::test {
namespace {

TEST(Simulation, OfARingIsComputationOrCommunicationWhicheverIsLonger) {
  for (const int P : {1, 2, 3, 8}) {
    for (const double seconds : {1e-6, 1e-4, 1e-2}) {
      for (const std::int64_t m : {4, 100'000, 4'000'000}) {
        Platform platform = cluster_of(8);
        platform.comm.operation_s = 2e-6;
        const double time = time_of(platform, P, [&](Machine& machine) {
          Tensor held = bytes(machine, m), next = bytes(machine, m);
          for (int step = 0; step < P; ++step) {
            Pending pending;
            const int rank = machine.comm.rank();
            if (step + 1 < P) {
              pending = machine.comm.exchange({{(rank + 1) % P, held, {"k", step}}},
                                              {{(rank + P - 1) % P, next, {"k", step}}});
            }
            compute(machine, seconds);
            pending.wait();
            std::swap(held, next);
          }
        });
        const double message = 2e-6 + kLatency + static_cast<double>(m) / kPort;
        const double expected = (P - 1) * std::max(seconds, message) + seconds;
        EXPECT_NEAR(time, expected, 1e-3 * expected) << P << " " << seconds << " " << m;
      }
    }
  }
}

TEST(Simulation, OfOneRankIsItsKernels) {
  for (const Algorithm* algorithm : algorithms()) {
    const Prediction prediction = simulate(
        cluster_of(8), *algorithm, problem_of(*algorithm, {1, 4096, 8, 8, 64, 64}), {1, 1, 1});
    ASSERT_EQ(prediction.status, RowStatus::kOk) << algorithm->id << ": " << prediction.reason;
    for (const PassPrediction& pass : {prediction.forward, prediction.backward}) {
      EXPECT_GT(pass.time_s, 0) << algorithm->id;
      EXPECT_NEAR(pass.time_s, pass.compute_s, 1e-9 * pass.time_s) << algorithm->id;
      EXPECT_EQ(pass.flow_bytes, 0) << algorithm->id;
    }
  }
}

TEST(Simulation, OfAnAttentionKernelIsWhatKernelTimeSays) {
  const Algorithm& ring = *find_algorithm("ring/contiguous");
  Problem problem = problem_of(ring, {1, 4096, 8, 8, 64, 64});
  problem.mask.causal = false;
  const Platform platform = perfect_cluster_of(8);
  double expected = 0;
  run_phantom(platform, 1, [&](Machine& machine) {
    const auto tensor = [&](std::int64_t size, DType dtype) {
      return machine.memory.allocate(dtype, {4096, 1, 8, size}, "tensor");
    };
    const Tensor q = tensor(64, DType::kBF16);
    const std::vector<Tensor> reads{q, q, q};
    const std::vector<Tensor> writes{tensor(64, DType::kF32), tensor(1, DType::kF32)};
    Charge charge{"attention", attention_flops(4096 * 4096, 1, 8, 64, 64), 0};
    for (const auto* all : {&reads, &writes}) {
      for (const Tensor& each : *all) charge.bytes += each.bytes();
    }
    expected = kernel_seconds(platform.device, charge, reads, writes);
  });
  const double time = simulate(platform, ring, problem, {1, 1, 1}).forward.time_s;
  EXPECT_GE(time, expected);
  EXPECT_LE(time, 1.2 * expected);  // fill, merge, cast
}

TEST(Simulation, OfBalancedWorkOverAPerfectNetworkIsPureComputation) {
  for (const char* id : {"ring/contiguous", "ring/zigzag", "ring_two_channel/zigzag", "rsa",
                         "token_ring/contiguous", "allgather", "ulysses"}) {
    const Algorithm& algorithm = *find_algorithm(id);
    Problem problem = problem_of(algorithm, {1, 4096, 8, 8, 64, 64});
    problem.mask.causal = false;
    const Prediction prediction = simulate(perfect_cluster_of(8), algorithm, problem, {8, 1, 1});
    for (const PassPrediction& pass : {prediction.forward, prediction.backward}) {
      EXPECT_NEAR(pass.time_s, pass.compute_s, 0.01 * pass.compute_s) << id;
      EXPECT_NEAR(pass.busiest_s, pass.compute_s, 0.01 * pass.compute_s) << id;
      EXPECT_LE(pass.exposed_s, 0.01 * pass.compute_s) << id;
    }
  }
}

TEST(Simulation, OfTheSameIsTheSameBitForBit) {
  const Algorithm& algorithm = *find_algorithm("token_ring/zigzag");
  const Problem problem = problem_of(algorithm, {1, 12345, 16, 16, 64, 64});
  const auto predict = [&] { return simulate(cluster_of(16), algorithm, problem, {11, 1, 1}); };
  const Prediction first = predict();
  time_of(cluster_of(2), 2, [](Machine& machine) { compute(machine, 0.1); });
  const Prediction second = predict();
  EXPECT_EQ(first.forward.time_s, second.forward.time_s);
  EXPECT_EQ(first.backward.time_s, second.backward.time_s);
  EXPECT_EQ(first.forward.exposed_s, second.forward.exposed_s);
  EXPECT_EQ(first.backward.compute_s, second.backward.compute_s);
}

TEST(Simulation, TellsAFullDeviceAndWhatDidNotFit) {
  const Algorithm& algorithm = *find_algorithm("ring/contiguous");
  const Problem problem = problem_of(algorithm, {1, 4096, 8, 8, 64, 64});
  const World world{4, 1, 1};
  Platform platform = cluster_of(8);
  const Prediction roomy = simulate(platform, algorithm, problem, world);
  ASSERT_EQ(roomy.status, RowStatus::kOk);
  const std::int64_t shards = 3 * 1024 * 8 * 64 * 2;
  const std::int64_t needed = shards + roomy.ranks.front().forward.peak_bytes;
  SimulationOptions forward_only;
  forward_only.backward = false;
  platform.device.memory_bytes = static_cast<double>(needed);
  EXPECT_EQ(simulate(platform, algorithm, problem, world, forward_only).status, RowStatus::kOk);
  forward_only.resident_bytes = 1;
  const Prediction full = simulate(platform, algorithm, problem, world, forward_only);
  EXPECT_EQ(full.status, RowStatus::kOom);
  EXPECT_TRUE(says(full.reason, "out needs 1048576 bytes")) << full.reason;
  EXPECT_TRUE(says(full.reason, "the device has " + std::to_string(needed))) << full.reason;
  forward_only.unlimited_memory = true;
  EXPECT_EQ(simulate(platform, algorithm, problem, world, forward_only).status, RowStatus::kOk);
}

TEST(Simulation, SkipsWhatTheAlgorithmRefusesAndRefusesImpossibleWorlds) {
  const Algorithm& ulysses = *find_algorithm("ulysses");
  const Problem problem = problem_of(ulysses, {1, 64, 4, 4, 8, 8});
  const Prediction refused = simulate(cluster_of(8), ulysses, problem, {8, 1, 1});
  EXPECT_EQ(refused.status, RowStatus::kSkipped);
  EXPECT_FALSE(refused.reason.empty());
  const auto refusal = [&](const World& world, std::vector<int> placement = {}) {
    SimulationOptions options;
    options.placement = std::move(placement);
    return error_of([&] { simulate(cluster_of(8), ulysses, problem, world, options); });
  };
  EXPECT_TRUE(says(refusal({9, 1, 1}), "allows 1..8"));
  EXPECT_TRUE(says(refusal({4, 3, 1}), "impossible mesh"));
  EXPECT_TRUE(says(refusal({4, 1, 0}), "splits = 0"));
  EXPECT_TRUE(says(refusal({2, 1, 1}, {0, 8}), "impossible placement"));
  EXPECT_TRUE(says(refusal({2, 1, 1}, {3, 3}), "impossible placement"));
}

TEST(Simulation, EndsADeadlockByNamingWhoWaitsForWhat) {
  const std::string lost = error_of([] {
    time_of(cluster_of(2), 2, [](Machine& machine) {
      if (machine.comm.rank() == 0) receive(machine.comm, bytes(machine, 8), 1, 3).wait();
    });
  });
  EXPECT_TRUE(says(lost, "rank 0 waits for k step 3 (8 bytes) from rank 1")) << lost;
  EXPECT_TRUE(says(lost, "rank 1 has finished")) << lost;

  const std::string absent = error_of([] {
    time_of(cluster_of(3), 3, [](Machine& machine) {
      if (machine.comm.rank() != 1) machine.comm.all_reduce(bytes(machine, 8), {"sum", 0}).wait();
    });
  });
  EXPECT_TRUE(says(absent,
                   "rank 2 waits for the all_reduce of sum step 0 (8 bytes), which lacks "
                   "rank 1"))
      << absent;

  const std::string unsplit = error_of([] {
    time_of(cluster_of(3), 3, [](Machine& machine) {
      if (machine.comm.rank() != 2) machine.comm.channel("second");
    });
  });
  EXPECT_TRUE(says(unsplit, "rank 0 waits for a split that lacks rank 2")) << unsplit;
}

TEST(Simulation, EndsAMismatchOrAThrowWithItsRank) {
  const std::string mismatch = error_of([] {
    time_of(cluster_of(2), 2, [](Machine& machine) {
      const Tensor data = bytes(machine, machine.comm.rank() == 0 ? 8 : 12);
      if (machine.comm.rank() == 0) send(machine.comm, data, 1).wait();
      if (machine.comm.rank() == 1) receive(machine.comm, data, 0).wait();
    });
  });
  EXPECT_TRUE(says(mismatch, "rank 0 sent k step 0 (8 bytes")) << mismatch;
  EXPECT_TRUE(says(mismatch, "rank 1 expected k step 0 (12 bytes")) << mismatch;

  const std::string root = error_of([] {
    time_of(cluster_of(2), 2, [](Machine& machine) {
      machine.comm.broadcast(bytes(machine, 8), machine.comm.rank(), {"k", 0}).wait();
    });
  });
  EXPECT_TRUE(says(root, "broadcasts do not match")) << root;

  const std::string thrown = error_of([] {
    time_of(cluster_of(3), 3, [](Machine& machine) {
      if (machine.comm.rank() == 1) throw Error(ErrorKind::kUsage, "no more");
      machine.comm.all_reduce(bytes(machine, 8), {"sum", 0}).wait();
    });
  });
  EXPECT_EQ(thrown, "rank 1: no more");
}

TEST(Simulation, KeepsATimelineOfAllLanes) {
  Timeline timeline;
  SimulationOptions options;
  options.timeline = &timeline;
  const double message = kLatency + 1e6 / kPort;
  run_phantom(
      cluster_of(2), 2,
      [](Machine& machine) {
        const Tensor data = bytes(machine, 1'000'000);
        Pending pending = machine.comm.rank() == 0 ? send(machine.comm, data, 1, 7)
                                                   : receive(machine.comm, data, 0, 7);
        compute(machine, 1e-4);
        pending.wait();
      },
      options);
  const std::vector<Span> spans = timeline.take();
  ASSERT_EQ(spans.size(), 6u);  // per rank: the kernel, one side of the message, the wait
  for (const Span& span : spans) {
    const bool kernel = span.lane == TraceLane::kCompute;
    const bool wait = span.lane == TraceLane::kWait;
    EXPECT_NEAR(span.start_s, wait ? 1e-4 : 0, kExact);
    EXPECT_NEAR(span.end_s, kernel ? 1e-4 : message, kExact);
    EXPECT_EQ(span.name, kernel ? "fill" : "k");
    if (kernel) continue;
    EXPECT_EQ(span.step, 7);
    if (wait) continue;
    EXPECT_EQ(span.lane, span.rank == 0 ? TraceLane::kSend : TraceLane::kReceive);
    EXPECT_EQ(span.peer, 1 - span.rank);
    EXPECT_EQ(span.bytes, 1'000'000);
  }
}

}  // namespace
}  // namespace sp::test
