// Who shares which bandwidth with whom, and what collectives take, against closed forms.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tests/simulated/sim_fixture.hpp"

namespace sp::test {
namespace {

constexpr std::int64_t kMegabyte = 1'000'000;
constexpr double kAlone = kMegabyte / kPort;  // its time in a port that nobody shares

// Rank pair.first sends a megabyte to pair.second, all at once.
double time_of_messages(const Platform& platform, int ranks,
                        const std::vector<std::pair<int, int>>& pairs) {
  return time_of(platform, ranks, [&](Machine& machine) {
    std::vector<Message> sends, receives;
    for (const auto& [from, to] : pairs) {
      const Tensor data = bytes(machine, kMegabyte);
      if (from == machine.comm.rank()) sends.push_back({to, data, {"k", 0}});
      if (to == machine.comm.rank()) receives.push_back({from, data, {"k", 0}});
    }
    machine.comm.exchange(std::move(sends), std::move(receives)).wait();
  });
}

TEST(SimNetwork, PortsAreFullDuplexAndSharedPerDirection) {
  const Platform platform = cluster_of(4);
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 1}}), kLatency + kAlone, kExact);
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 1}, {1, 0}}), kLatency + kAlone, kExact);
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 1}, {2, 3}}), kLatency + kAlone, kExact);
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 1}, {0, 2}}), kLatency + 2 * kAlone, kExact);
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 3}, {1, 3}, {2, 3}}), kLatency + 3 * kAlone,
              kExact);
}

TEST(SimNetwork, UplinksAreSharedByWhatLeavesAGroup) {
  Platform platform = cluster_of(4);
  platform.node.wiring = Wiring::kPcie;
  platform.node.group = 2;
  platform.node.uplink_bandwidth = kPort;
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 1}, {2, 3}}), kLatency + kAlone, kExact);
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 2}, {1, 3}}), kLatency + 2 * kAlone, kExact);
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 2}, {3, 1}}), kLatency + kAlone, kExact);
}

TEST(SimNetwork, WhatIsDoneFirstLeavesItsShareToTheOthers) {
  const double time = time_of(cluster_of(3), 3, [](Machine& machine) {
    const Tensor small = bytes(machine, kMegabyte), large = bytes(machine, 3 * kMegabyte);
    if (machine.comm.rank() == 0)
      machine.comm.exchange({{1, small, {"k", 0}}, {2, large, {"k", 0}}}, {}).wait();
    if (machine.comm.rank() == 1) receive(machine.comm, small, 0).wait();
    if (machine.comm.rank() == 2) receive(machine.comm, large, 0).wait();
  });
  EXPECT_NEAR(time, kLatency + 4 * kAlone, kExact);
}

TEST(SimNetwork, AMessageStartsWhenBothSidesHaveCome) {
  const double time = time_of(cluster_of(2), 2, [](Machine& machine) {
    const Tensor data = bytes(machine, kMegabyte);
    if (machine.comm.rank() == 0) send(machine.comm, data, 1).wait();
    if (machine.comm.rank() == 1) {
      compute(machine, 5e-3);
      receive(machine.comm, data, 0).wait();
    }
  });
  EXPECT_NEAR(time, 5e-3 + kLatency + kAlone, kExact);
}

TEST(SimNetwork, OneCommunicatorWorksInOrderAndTwoSideBySide) {
  Platform platform = cluster_of(2);
  platform.comm.operation_s = 1e-5;
  const auto twice = [&](bool second_channel) {
    return time_of(platform, 2, [&](Machine& machine) {
      Communicator& first = machine.comm;
      Communicator& second = second_channel ? first.channel("second") : first;
      const Tensor a = bytes(machine, kMegabyte), b = bytes(machine, kMegabyte);
      const bool sends = first.rank() == 0;
      Pending one = sends ? send(first, a, 1) : receive(first, a, 0);
      Pending two = sends ? receive(second, b, 1, 1) : send(second, b, 0, 1);
      two.wait();
      one.wait();
    });
  };
  EXPECT_NEAR(twice(false), 2 * (1e-5 + kLatency + kAlone), kExact);
  EXPECT_NEAR(twice(true), 1e-5 + kLatency + kAlone, kExact);
}

TEST(SimNetwork, AChannelCapsTheSumOfItsMessages) {
  Platform platform = cluster_of(4);
  platform.comm.channel_bandwidth = kPort / 4;
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 1}}), kLatency + 4 * kAlone, kExact);
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 1}, {0, 2}}), kLatency + 8 * kAlone, kExact);
  EXPECT_NEAR(time_of_messages(platform, 4, {{0, 1}, {1, 0}}), kLatency + 4 * kAlone, kExact);
  const double two_channels = time_of(platform, 2, [](Machine& machine) {
    Communicator* comms[] = {&machine.comm, &machine.comm.channel("second")};
    std::vector<Pending> pending;
    for (Communicator* comm : comms) {
      const Tensor data = bytes(machine, kMegabyte);
      pending.push_back(comm->rank() == 0 ? send(*comm, data, 1) : receive(*comm, data, 0));
    }
    for (Pending& each : pending) each.wait();
  });
  EXPECT_NEAR(two_channels, kLatency + 4 * kAlone, kExact);
}

TEST(SimNetwork, MovingDataSlowsKernels) {
  Platform platform = cluster_of(2);
  platform.comm.compute_share = {0.5, 0.25};
  constexpr double kKernel = 20e-3;  // alone; longer than all messages
  for (const int communicators : {0, 1, 2, 3}) {
    const double time = time_of(platform, 2, [&](Machine& machine) {
      std::vector<Pending> pending;
      for (int i = 0; i < communicators; ++i) {
        Communicator& comm = machine.comm.channel("channel " + std::to_string(i));
        const Tensor data = bytes(machine, kMegabyte);
        pending.push_back(comm.rank() == 0 ? send(comm, data, 1) : receive(comm, data, 0));
      }
      compute(machine, kKernel);
      for (Pending& each : pending) each.wait();
    });
    const double moving = communicators == 0 ? 0 : kLatency + communicators * kAlone;
    const double share = communicators == 1 ? 0.5 : 0.25;
    EXPECT_NEAR(time, kKernel + (1 - share) * moving, kExact) << communicators;
  }
}

TEST(SimNetwork, RanksTakeTheDevicesOfTheirPlacement) {
  Platform platform = cluster_of(4);
  platform.node.wiring = Wiring::kPcie;
  platform.node.group = 2;
  platform.node.uplink_bandwidth = kPort / 2;
  SimulationOptions options;
  const auto time = [&] {
    return run_phantom(
               platform, 2,
               [](Machine& machine) {
                 const Tensor data = bytes(machine, kMegabyte);
                 if (machine.comm.rank() == 0) send(machine.comm, data, 1).wait();
                 if (machine.comm.rank() == 1) receive(machine.comm, data, 0).wait();
               },
               options)
        .time_s;
  };
  EXPECT_NEAR(time(), kLatency + kAlone, kExact);
  options.placement = {0, 2};
  EXPECT_NEAR(time(), kLatency + 2 * kAlone, kExact);
}

// Time of one collective over `count` bytes per rank.
double time_of_collective(const Platform& platform, int ranks, Pattern pattern,
                          std::int64_t count) {
  return time_of(platform, ranks, [&](Machine& machine) {
    Communicator& comm = machine.comm;
    const Tensor one = bytes(machine, count);
    std::vector<Tensor> many, others;
    for (int rank = 0; rank < ranks; ++rank) {
      many.push_back(bytes(machine, count));
      others.push_back(bytes(machine, count));
    }
    const Label label{"k", 0};
    if (pattern == Pattern::kAllGather) comm.all_gather(one, many, label).wait();
    if (pattern == Pattern::kReduceScatter) comm.reduce_scatter(many, one, label).wait();
    if (pattern == Pattern::kAllReduce) comm.all_reduce(one, label).wait();
    if (pattern == Pattern::kAllToAll) comm.all_to_all(many, others, label).wait();
    if (pattern == Pattern::kBroadcast) comm.broadcast(one, 0, label).wait();
  });
}

TEST(SimNetwork, CollectivesTakeTheTimeOfTheirRings) {
  Platform platform = cluster_of(8);
  constexpr double kPost = 3e-6, kStep = 2e-6;
  platform.comm.operation_s = kPost;
  platform.comm.step_s = kStep;
  constexpr std::int64_t kLarge = 8 * kMegabyte;
  for (const int P : {2, 5, 8}) {
    const double steps = P - 1, bytes = kLarge / kPort;
    const double ring = kPost + steps * kLatency + (steps - 1) * kStep + steps * bytes;
    EXPECT_NEAR(time_of_collective(platform, P, Pattern::kAllGather, kLarge), ring, 1e-3 * ring);
    EXPECT_NEAR(time_of_collective(platform, P, Pattern::kReduceScatter, kLarge), ring,
                1e-3 * ring);
    const double twice =
        kPost + 2 * steps * kLatency + (2 * steps - 1) * kStep + 2 * steps / P * bytes;
    EXPECT_NEAR(time_of_collective(platform, P, Pattern::kAllReduce, kLarge), twice, 1e-3 * twice);
    const double direct = kPost + kLatency + steps * bytes;
    EXPECT_NEAR(time_of_collective(platform, P, Pattern::kAllToAll, kLarge), direct, 1e-3 * direct);
    const double chain = kPost + steps * kLatency + (steps - 1) * kStep + bytes;
    EXPECT_NEAR(time_of_collective(platform, P, Pattern::kBroadcast, kLarge), chain, 1e-3 * chain);
  }
}

TEST(SimNetwork, SmallSumsAndBroadcastsClimbATree) {
  Platform platform = cluster_of(8);
  platform.comm.step_s = 2e-6;
  // 8 ranks: three levels down, and as many up.
  EXPECT_NEAR(time_of_collective(platform, 8, Pattern::kBroadcast, 4), 3 * kLatency + 2 * 2e-6,
              20 * kExact);
  EXPECT_NEAR(time_of_collective(platform, 8, Pattern::kAllReduce, 4), 6 * kLatency + 5 * 2e-6,
              20 * kExact);
}

TEST(SimNetwork, OverNodesCollectivesUseAllAdaptersAndTheFasterWay) {
  constexpr int kNodes = 4, kLocal = 4, P = kNodes * kLocal;
  Platform platform = cluster_of(kLocal);
  platform.node.latency_s = 1e-6;
  constexpr double kFar = 1e-4, kAdapter = kPort / 10;
  platform.fabric = {kNodes, kLocal, kAdapter, kFar};
  // Small: rings inside and rails between, because a ring over all pays every latency.
  const double rails = (kNodes - 1) * kFar + (kLocal - 1) * 1e-6;
  EXPECT_NEAR(time_of_collective(platform, P, Pattern::kAllGather, 4), rails, 1e-3 * rails);
  EXPECT_NEAR(time_of_collective(platform, P, Pattern::kReduceScatter, 4), rails, 1e-3 * rails);
  // Large: all adapters of a node work at once, whatever the way. One ring through one adapter
  // would take (P - 1) m / adapter.
  const double m = 4 * kMegabyte;
  for (const Pattern pattern : {Pattern::kAllGather, Pattern::kReduceScatter}) {
    const double time = time_of_collective(platform, P, pattern, 4 * kMegabyte);
    EXPECT_LE(time, (P - 1) * m / kLocal / kAdapter + (P - 1) * kFar + 1e-6);
    EXPECT_GE(time, (P - kLocal) * m / kLocal / kAdapter);  // what must enter a node
  }
}

TEST(SimNetwork, AMeshUsesAllItsWires) {
  Platform platform = cluster_of(4);
  platform.node.wiring = Wiring::kMesh;
  platform.node.pair_bandwidth = kPort / 3;
  const double bytes = kMegabyte / platform.node.pair_bandwidth;
  EXPECT_NEAR(time_of_collective(platform, 4, Pattern::kAllGather, kMegabyte), kLatency + bytes,
              kExact);
  EXPECT_NEAR(time_of_collective(platform, 4, Pattern::kAllToAll, kMegabyte), kLatency + bytes,
              kExact);
}

TEST(SimNetwork, AllToAllOfMoreThanTwoLosesWhatTheFanCosts) {
  Platform platform = cluster_of(4);
  platform.comm.fan_bandwidth = kPort;
  const auto time = [&](int ranks, Pattern pattern) {
    return time_of_collective(platform, ranks, pattern, kMegabyte);
  };
  EXPECT_NEAR(time(2, Pattern::kAllToAll), kLatency + kAlone, kExact);
  EXPECT_NEAR(time(3, Pattern::kAllToAll), kLatency + 2 * kAlone * 2, kExact);
  EXPECT_NEAR(time(4, Pattern::kAllToAll), kLatency + 3 * kAlone * 3, kExact);
  EXPECT_NEAR(time(4, Pattern::kAllGather), 3 * (kLatency + kAlone), kExact);
}

TEST(SimNetwork, EmptyMessagesTakeTheirLatencyAndOneRankTakesNothing) {
  const Platform platform = cluster_of(3);
  for (const Pattern pattern : {Pattern::kAllGather, Pattern::kReduceScatter, Pattern::kAllReduce,
                                Pattern::kAllToAll, Pattern::kBroadcast}) {
    const double empty = time_of_collective(platform, 3, pattern, 0);
    EXPECT_GE(empty, kLatency - kExact);
    EXPECT_LE(empty, 4 * kLatency + kExact);
    EXPECT_EQ(time_of_collective(platform, 1, pattern, kMegabyte), 0);
  }
}

}  // namespace
}  // namespace sp::test
