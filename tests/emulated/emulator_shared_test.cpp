// Shared memory of the emulator: bounds, initialisation, races, counts.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "harness/emulator/emulator.hpp"
#include "tests/emulated/lanes.hpp"

namespace sp::emulated {
namespace {

constexpr int kBytes = 1024;

Shared<int> words() { return shared_memory<int>(0); }

TEST(EmulatorShared, CarriesValuesOfEverySize) {
  expect_no_fault({.threads = 64, .shared_bytes = 16 * 64}, [] {
    const int me = thread_id(), other = 63 - me;
    const auto put = [&](auto value) {
      using T = decltype(value);
      shared_memory<T>(0).store(me, value);
      block_barrier();
      const T theirs = shared_memory<T>(0).load(other);
      block_barrier();
      return theirs;
    };
    const auto as_float = [](int x) { return static_cast<float>(x); };
    EXPECT_EQ(put(static_cast<std::int16_t>(me)), other);
    EXPECT_EQ(put(me), other);
    EXPECT_EQ(put(std::int64_t{me} << 33), std::int64_t{other} << 33);
    EXPECT_EQ(put(make_int2(me, -me)).y, -other);
    EXPECT_EQ(put(make_float4(0, 0, 0, as_float(me))).w, as_float(other));
    EXPECT_EQ(__bfloat16_as_ushort(put(__ushort_as_bfloat16(static_cast<unsigned short>(me)))),
              other);
  });
}

TEST(EmulatorShared, LeavesPoisonForEveryBlock) {
  expect_fault(FaultKind::kUninitialised,
               {"kernel 'under_test'", "block (", "read of shared byte 64, which nobody wrote"},
               {.threads = 1, .shared_bytes = kBytes, .blocks = 2}, [] {
                 static_cast<void>(words().load(16));
                 words().store(16, 0);
               });
  // Half a word is not a word.
  expect_fault(FaultKind::kUninitialised, {"shared byte 2,"},
               {.threads = 1, .shared_bytes = kBytes}, [] {
                 shared_memory<std::int16_t>(0).store(0, 0);
                 static_cast<void>(words().load(0));
               });
}

TEST(EmulatorShared, EndsWhereTheLaunchSaysSo) {
  const Lanes shape{.threads = 1, .shared_bytes = 40};
  expect_fault(FaultKind::kOutOfBounds, {"write of 4 bytes at byte 40", "which has 40"}, shape,
               [] { words().store(10, 0); });
  expect_fault(FaultKind::kOutOfBounds, {"read of 4 bytes at byte -4"}, shape,
               [] { static_cast<void>(words().load(-1)); });
  expect_fault(FaultKind::kOutOfBounds, {"write of 16 bytes at byte 32"}, shape,
               [] { words().store_as(8, make_uint4(0, 0, 0, 0)); });
  expect_fault(FaultKind::kOutOfBounds, {"of shared memory, which has 0"}, {},
               [] { words().store(0, 0); });
  expect_no_fault(shape, [] { words().store(9, 0); });
}

TEST(EmulatorShared, WantsAlignedAccesses) {
  const Lanes shape{.threads = 1, .shared_bytes = kBytes};
  expect_fault(FaultKind::kMisaligned, {"write of 16 bytes at byte 8"}, shape,
               [] { words().store_as(2, make_float4(0, 0, 0, 0)); });
  expect_fault(FaultKind::kMisaligned, {"write of 4 bytes at byte 2"}, shape,
               [] { shared_memory<int>(2).store(0, 0); });
}

TEST(EmulatorSharedDeathTest, IsNoMemoryOfTheHost) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(run_lanes({.threads = 1, .shared_bytes = kBytes}, [] { *words().address() = 1; }),
               "");
}

// ---- Races -------------------------------------------------------------------------------------

TEST(EmulatorShared, WarpsNeedABlockBarrier) {
  const Lanes shape{.threads = 64, .shared_bytes = kBytes};
  expect_fault(FaultKind::kRace, {"races with the", "no block_barrier between", "shared byte 0"},
               shape, [] {
                 if (lane_id() == 0) words().store(0, 1);
               });
  expect_fault(FaultKind::kRace, {"races with the", "no block_barrier between"}, shape,
               [] {  // a warp barrier is not enough
                 words().store(63 - thread_id(), 0);
                 block_barrier();
                 words().store(thread_id(), 1);
                 warp_barrier();
                 static_cast<void>(words().load(63 - thread_id()));
               });
  expect_fault(FaultKind::kRace, {"races with the", "no block_barrier between"}, shape, [] {
    words().store(thread_id(), 1);
    block_barrier();
    static_cast<void>(words().load((thread_id() + 32) % 64));
    warp_barrier();
    words().store(thread_id(), 2);  // while the other warp may still read
  });
  expect_no_fault(shape, [] {
    words().store(thread_id(), 1);
    block_barrier();
    EXPECT_EQ(words().load(63 - thread_id()), 1);
    block_barrier();
    words().store(thread_id(), 2);
    block_barrier();
    EXPECT_EQ(words().load(63 - thread_id()), 2);
  });
}

TEST(EmulatorShared, LanesOfAWarpNeedAWarpBarrier) {
  const Lanes shape{.shared_bytes = kBytes};
  const std::vector<std::string> words_of_story{"races with the",
                                                "no warp_barrier or block_barrier between"};
  expect_fault(FaultKind::kRace, words_of_story, shape, [] {
    words().store(lane_id(), 0);
    block_barrier();
    if (lane_id() < 16) words().store(lane_id(), 1);
    shuffle(1, 0);  // orders nothing
    if (lane_id() >= 16) static_cast<void>(words().load(31 - lane_id()));
  });
  for (const bool of_block : {false, true}) {
    expect_no_fault(shape, [of_block] {
      words().store(lane_id(), 1);
      of_block ? block_barrier() : warp_barrier();
      EXPECT_EQ(words().load(31 - lane_id()), 1);
      of_block ? block_barrier() : warp_barrier();
      words().store(31 - lane_id(), 2);
    });
  }
}

TEST(EmulatorShared, ReadersOfOtherWarpsAreNotForgotten) {
  // However many lanes of the writer's own warp read after the one of the other warp.
  expect_fault(FaultKind::kRace, {"shared byte 0", "no block_barrier between"},
               {.threads = 96, .shared_bytes = kBytes}, [] {
                 if (thread_id() == 0) words().store(0, 1);
                 block_barrier();
                 if (warp_id() == 0 || thread_id() == 77) static_cast<void>(words().load(0));
                 if (warp_id() == 0) {
                   for (int i = 0; i < 3; ++i) {
                     warp_barrier();
                     static_cast<void>(words().load(0));
                   }
                   warp_barrier();
                   if (lane_id() == 0) words().store(0, 2);
                 }
               });
}

TEST(EmulatorShared, NeighboursShareNoCell) {
  expect_no_fault({.threads = 64, .shared_bytes = kBytes}, [] {
    const auto halves = shared_memory<std::int16_t>(0);
    halves.store(thread_id(), 1);
    EXPECT_EQ(halves.load(thread_id()), 1);
    halves.store(thread_id(), 2);
  });
}

TEST(EmulatorShared, ARaceIsFoundInEveryOrderOfItsThreeKinds) {
  const auto conflict = [](bool first_writes, bool second_writes) {
    return [=] {
      if (thread_id() == 0) words().store(0, 0);
      block_barrier();
      const auto touch_word = [](bool writes) {
        if (writes) {
          words().store(0, 1);
        } else {
          static_cast<void>(words().load(0));
        }
      };
      if (thread_id() == 3) touch_word(first_writes);
      if (thread_id() == 40) touch_word(second_writes);
    };
  };
  const Lanes shape{.threads = 64, .shared_bytes = kBytes};
  expect_fault(FaultKind::kRace, {"thread 3 ", "thread 40 "}, shape, conflict(true, true));
  expect_fault(FaultKind::kRace, {"thread 3 ", "thread 40 "}, shape, conflict(true, false));
  expect_fault(FaultKind::kRace, {"thread 3 ", "thread 40 "}, shape, conflict(false, true));
  expect_no_fault(shape, conflict(false, false));
}

TEST(EmulatorShared, BarriersMayOutnumberTheStampsOfALaunch) {
  constexpr int kBarriers = 1 << 20;
  Lanes shape{.threads = 1, .shared_bytes = kBytes, .blocks = 6};
  const auto body = [](int barriers) {
    return [barriers] {
      words().store(0, 1);
      for (int i = 0; i < barriers; ++i) block_barrier();
      EXPECT_EQ(words().load(0), 1);
    };
  };
  EXPECT_NO_THROW(run_lanes(shape, body(kBarriers)));
  shape.seed = kSeeds;
  expect_fault(FaultKind::kResources, {"more barriers"}, shape, body(4 * kBarriers));
}

// ---- Counts ------------------------------------------------------------------------------------

emulator::KernelCounts counts_of(const Lanes& shape, const std::function<void()>& body) {
  emulator::count_accesses(true);
  run_lanes(shape, body);
  emulator::count_accesses(false);
  const std::vector<emulator::KernelCounts> counts = emulator::take_counts();
  EXPECT_EQ(counts.size(), 1u);
  EXPECT_EQ(counts[0].kernel, "under_test");
  return counts[0];
}

struct Pattern {
  const char* name;
  int stride;  // in words, between lanes
  int wavefronts;
};

TEST(EmulatorCounts, WavefrontsAreBankConflicts) {
  for (const auto& [name, stride, wavefronts] :
       {Pattern{"broadcast", 0, 1}, Pattern{"adjacent", 1, 1}, Pattern{"even", 2, 2},
        Pattern{"padded", 33, 1}, Pattern{"column", 32, 32}}) {
    const Lanes shape{.threads = 64, .shared_bytes = 33 * 32 * 4};
    const auto counts = counts_of(shape, [step = stride] {
      for (int i = 0; thread_id() == 0 && i < 33 * 32; ++i) words().store(i, 0);  // not counted
      block_barrier();
      if (warp_id() == 1) static_cast<void>(words().load(lane_id() * step));
    });
    EXPECT_EQ(counts.shared_requests, 1) << name;
    EXPECT_EQ(counts.shared_wavefronts, wavefronts) << name;
    EXPECT_EQ(counts.launches, 1);
    EXPECT_EQ(counts.global_requests, 0);
  }
}

TEST(EmulatorCounts, WideAccessesGoByPartsOfTheWarp) {
  const auto counts = counts_of({.shared_bytes = 512}, [] {
    words().store_as(4 * lane_id(), make_int4(0, 0, 0, 0));  // quarters of 8 lanes
    block_barrier();
    words().store_as(2 * lane_id(), make_int2(0, 0));  // halves
  });
  EXPECT_EQ(counts.shared_requests, 2);
  EXPECT_EQ(counts.shared_wavefronts, 4 + 2);
}

TEST(EmulatorCounts, AreOffUnlessAskedFor) {
  run_lanes({.shared_bytes = kBytes}, [] { words().store(lane_id(), 0); });
  EXPECT_TRUE(emulator::take_counts().empty());
}

}  // namespace
}  // namespace sp::emulated
