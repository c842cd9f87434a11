// Blocks of the emulator: lanes, rendezvous, orders, and the faults of lanes that do not meet.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "tests/emulated/lanes.hpp"

namespace sp::emulated {
namespace {

std::vector<int> order_of_lanes(std::uint64_t seed) {
  std::vector<int> order;
  run_lanes({.threads = 128, .seed = seed}, [&] {
    order.push_back(thread_id());
    block_barrier();
    order.push_back(thread_id());
    warp_barrier();
    order.push_back(thread_id());
  });
  return order;
}

TEST(EmulatorBlock, EveryLaneOfEveryBlockRunsOnceAndKnowsItsPlace) {
  using Place = std::tuple<unsigned, unsigned, unsigned, unsigned, unsigned, unsigned>;
  std::multiset<Place> places;
  emulator::KernelLaunch launch = lanes_launch(
      {}, unseen([&] {
        EXPECT_EQ(blockDim.x, 5u);
        EXPECT_EQ(blockDim.y, 3u);
        EXPECT_EQ(blockDim.z, 2u);
        EXPECT_EQ(gridDim.x, 4u);
        EXPECT_EQ(gridDim.y, 2u);
        EXPECT_EQ(gridDim.z, 3u);
        places.insert({blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z});
      }));
  launch.block = dim3(5, 3, 2);
  launch.grid = dim3(4, 2, 3);
  emulator::run_kernel(launch);
  std::multiset<Place> expected;
  for (unsigned i = 0; i < 4 * 2 * 3; ++i) {
    for (unsigned j = 0; j < 5 * 3 * 2; ++j) {
      expected.insert({i % 4, i / 4 % 2, i / 8, j % 5, j / 5 % 3, j / 15});
    }
  }
  EXPECT_EQ(places, expected);
}

TEST(EmulatorBlock, ABarrierWaitsForAllLanes) {
  for (const unsigned threads : {1u, 31u, 32u, 33u, 256u, 1024u}) {
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
      std::vector<int> round(threads, 0);
      run_lanes({.threads = threads, .seed = seed}, [&] {
        for (int i = 1; i <= 3; ++i) {
          round[static_cast<std::size_t>(thread_id())] = i;
          block_barrier();
          ASSERT_EQ(std::count(round.begin(), round.end(), i), threads);
          block_barrier();
        }
      });
    }
  }
}

TEST(EmulatorBlock, ShufflesAndVotesReachTheNamedLanes) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    run_lanes({.threads = 96, .seed = seed}, [] {
      const int me = thread_id();
      EXPECT_EQ(shuffle(me, 5), warp_id() * 32 + 5);
      EXPECT_EQ(shuffle(me, lane_id() + 1), warp_id() * 32 + (lane_id() + 1) % 32);
      EXPECT_EQ(shuffle(std::int64_t{me} << 40, 31), std::int64_t{warp_id() * 32 + 31} << 40);
      EXPECT_EQ(shuffle_xor(me, 6), me ^ 6);
      EXPECT_EQ(warp_sum(static_cast<float>(lane_id())), 496.0f);
      EXPECT_EQ(warp_sum<4>(static_cast<float>(lane_id())),
                static_cast<float>(lane_id() / 4 * 16 + 6));
      EXPECT_EQ(warp_max<8>(static_cast<float>(me)), static_cast<float>(me | 7));
      EXPECT_EQ(emulator::ballot(lane_id() % 3 == 0), 0x49249249u);
      EXPECT_TRUE(warp_any(lane_id() == 17));
      EXPECT_FALSE(warp_any(me < 0));
      EXPECT_TRUE(warp_all(me >= 0));
      EXPECT_FALSE(warp_all(lane_id() != 17));
    });
  }
}

TEST(EmulatorBlock, WarpsGoTheirOwnWays) {
  expect_no_fault({.threads = 128}, [] {
    for (int i = 0; i < 4 * warp_id(); ++i) warp_barrier();
    block_barrier();
    if (warp_id() == 1) shuffle(1, 0);
  });
}

TEST(EmulatorBlock, OrdersFollowTheSeed) {
  std::set<std::vector<int>> orders;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const std::vector<int> order = order_of_lanes(seed);
    EXPECT_EQ(order, order_of_lanes(seed));
    orders.insert(order);
  }
  EXPECT_GT(orders.size(), kSeeds / 2);

  std::set<std::vector<unsigned>> block_orders;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    std::vector<unsigned> order;
    run_lanes({.threads = 1, .blocks = 16, .seed = seed}, [&] { order.push_back(blockIdx.x); });
    EXPECT_EQ(order.size(), 16u);
    block_orders.insert(order);
  }
  EXPECT_EQ(block_orders.size(), kSeeds);
}

// ---- Lanes that do not meet --------------------------------------------------------------------

TEST(EmulatorBlock, ABarrierInOneBranchIsFound) {
  expect_fault(FaultKind::kDivergentBarrier,
               {"kernel 'under_test'", "block (0, 0, 0)", "return", "block_barrier"},
               {.threads = 64}, [] {
                 if (thread_id() < 40) block_barrier();
               });
  expect_no_fault({.threads = 64}, [] {
    if (blockIdx.x == 0) block_barrier();
  });
}

TEST(EmulatorBlock, ALaneThatLeavesBeforeTheBarrierIsFound) {
  expect_fault(FaultKind::kDivergentBarrier, {"lane 13", "block_barrier"}, {.threads = 32}, [] {
    if (thread_id() == 13) return;
    block_barrier();
  });
}

TEST(EmulatorBlock, AShuffleInOneBranchIsFound) {
  expect_fault(FaultKind::kDivergentBarrier, {"warp 1", "shuffle", "return"}, {.threads = 64}, [] {
    if (thread_id() < 48) shuffle(1, 0);
  });
}

TEST(EmulatorBlock, DifferentWarpOperationsAreFound) {
  expect_fault(FaultKind::kDivergentBarrier, {"shuffle", "a vote", "lane"}, {}, [] {
    if (lane_id() < 16) {
      shuffle(1, 0);
    } else {
      warp_any(true);
    }
  });
  expect_fault(FaultKind::kDivergentBarrier, {"warp_barrier", "block_barrier"}, {.threads = 64},
               [] {
                 if (thread_id() == 63) {
                   warp_barrier();
                 } else {
                   block_barrier();
                 }
               });
}

TEST(EmulatorBlock, AnIncompleteWarpCannotShuffle) {
  expect_fault(FaultKind::kDivergentBarrier, {"warp 1", "shuffle", "8 lanes"}, {.threads = 40},
               [] { shuffle(1, 0); });
  expect_no_fault({.threads = 40}, [] {
    if (warp_id() == 0) shuffle(1, 0);
  });
}

TEST(EmulatorBlock, TheStoryTellsWhereEverybodyIs) {
  try {
    run_lanes({.threads = 96}, [] {
      if (thread_id() == 70) {
        shuffle(1, 0);  // waits, or finds the others waiting
      } else {
        block_barrier();
      }
    });
    FAIL();
  } catch (const emulator::Fault& fault) {
    expect_story(fault.what(), {"warp 2", "at block_barrier"});
  }
}

TEST(EmulatorBlock, TheNextLaunchAfterAFaultIsGood) {
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    EXPECT_THROW(run_lanes({.threads = 256, .seed = seed},
                           [] {
                             block_barrier();
                             if (thread_id() < 100) block_barrier();
                           }),
                 emulator::Fault);
    int lanes = 0;
    run_lanes({.threads = 256, .seed = seed}, [&] {
      block_barrier();
      ++lanes;
      block_barrier();
    });
    EXPECT_EQ(lanes, 256);
  }
}

TEST(EmulatorBlock, OtherExceptionsPassThrough) {
  EXPECT_THROW(run_lanes({},
                         [] {
                           if (thread_id() == 9) throw std::logic_error("host code in a kernel");
                           block_barrier();
                         }),
               std::logic_error);
}

TEST(EmulatorBlock, TooManyThreadsAreRefused) {
  EXPECT_THROW(run_lanes({.threads = 1025}, [] {}), emulator::Fault);
}

// ---- Planted faults ----------------------------------------------------------------------------

struct Planted {
  explicit Planted(const char* id) { emulator::plant({.id = id, .kernel = ""}); }
  ~Planted() { emulator::plant({}); }
};

TEST(EmulatorBlock, SabotageOfBarriersAndWarpsChangesThem) {
  const auto round_trip = [] {  // a neighbour's word through shared memory
    const auto word = shared_memory<int>(0);
    word.store(thread_id(), thread_id());
    block_barrier();
    return word.load((thread_id() + 33) % 64);
  };
  {
    const Planted planted("barrier_ignored");
    EXPECT_THROW(run_lanes({.threads = 64, .shared_bytes = 256}, [&] { round_trip(); }),
                 emulator::Fault);
  }
  {
    const Planted planted("shuffle_neighbour");
    run_lanes({}, [] { EXPECT_EQ(shuffle(lane_id(), 4), 5); });
  }
  {
    const Planted planted("ballot_first_lane");
    run_lanes({}, [] { EXPECT_TRUE(warp_all(lane_id() == 0)); });
  }
  {
    const Planted planted("last_block_missing");
    unsigned lanes = 0;
    run_lanes({.blocks = 3}, [&] { lanes += 1 + 100 * (blockIdx.x == 2); });
    EXPECT_EQ(lanes, 64u);
  }
  {
    const Planted planted("last_warp_missing");
    int lanes = 0;
    run_lanes({.threads = 80}, [&] {
      block_barrier();
      ++lanes;
    });
    EXPECT_EQ(lanes, 64);
  }
  run_lanes({.threads = 64, .shared_bytes = 256},
            [&] { EXPECT_EQ(round_trip(), (thread_id() + 33) % 64); });
}

}  // namespace
}  // namespace sp::emulated
