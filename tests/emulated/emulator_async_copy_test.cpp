// Global memory and asynchronous copies of the emulator, as kernels use them.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <numeric>

#include "harness/emulator/emulator.hpp"
#include "tests/emulated/lanes.hpp"

namespace sp::emulated {
namespace {

constexpr int kWords = 1024;  // of global memory: 0, 1, 2, ...
constexpr int kSharedBytes = 2048;

class EmulatorAsyncCopy : public testing::Test {
 protected:
  EmulatorAsyncCopy() {
    static_cast<void>(emulator::take_fault());
    std::array<int, kWords> values;
    std::iota(values.begin(), values.end(), 0);
    EXPECT_EQ(cudaMalloc(&words_, sizeof(values)), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(words_, values.data(), sizeof(values), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~EmulatorAsyncCopy() override {
    static_cast<void>(emulator::take_fault());
    cudaFree(words_);
    emulator::plant({});
  }

  Global<int> words() const { return Global<int>(words_); }

  emulator::FaultReport launch(unsigned threads, const std::function<void()>& body) {
    static const int kernel = 0;
    cudaLaunchConfig_t config;
    config.gridDim = dim3(2);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = kSharedBytes;
    nvtxRangePushA("under_test");
    EXPECT_EQ(emulator::launch_kernel(config, &kernel, body), cudaSuccess);
    nvtxRangePop();
    static_cast<void>(cudaDeviceSynchronize());
    return emulator::take_fault();
  }
  // In whatever order.
  void expect_good(unsigned threads, const std::function<void()>& body) {
    for (std::uint64_t i = 0; i < kSeeds; ++i) {
      const emulator::FaultReport fault = launch(threads, body);
      ASSERT_FALSE(fault.found) << fault.what;
    }
  }
  void expect_bad(FaultKind kind, const std::vector<std::string>& story, unsigned threads,
                  const std::function<void()>& body) {
    for (std::uint64_t i = 0; i < kSeeds; ++i) {
      const emulator::FaultReport fault = launch(threads, body);
      ASSERT_TRUE(fault.found);
      EXPECT_STREQ(name_of(fault.kind), name_of(kind)) << fault.what;
      expect_story(fault.what, story);
    }
  }
  // Every lane copies 4 words of its own, from the front of global to the front of shared memory.
  void copy_mine(bool valid = true) const {
    async_copy_16(tile() + 4 * thread_id(), Global<const int>(words() + 4 * thread_id()), valid);
  }
  static Shared<int> tile() { return shared_memory<int>(0); }

  int* words_ = nullptr;
};

TEST_F(EmulatorAsyncCopy, ArrivesByTheWaitAndTheBarrier) {
  expect_good(64, [this] {
    copy_mine();
    async_commit();
    async_wait<0>();
    EXPECT_EQ(tile().load(4 * thread_id() + 1), 4 * thread_id() + 1);  // mine
    block_barrier();
    EXPECT_EQ(tile().load(255 - thread_id()), 255 - thread_id());
  });
}

TEST_F(EmulatorAsyncCopy, InvalidOnesWriteZerosAndReadNothing) {
  expect_good(64, [this] {
    const bool valid = thread_id() % 2 == 0;
    async_copy_16(tile() + 4 * thread_id(),
                  Global<const int>(words() + (valid ? 4 * thread_id() : 4 * kWords)), valid);
    async_commit();
    async_wait<0>();
    for (int i = 4 * thread_id(); i < 4 * thread_id() + 4; ++i) {
      EXPECT_EQ(tile().load(i), valid ? i : 0);
    }
  });
}

TEST_F(EmulatorAsyncCopy, IsUnderWayUntilTheWait) {
  expect_bad(FaultKind::kAsyncCopy,
             {"kernel 'under_test'", "read of shared byte", "asynchronous copy"}, 32, [this] {
               copy_mine();
               async_commit();
               static_cast<void>(tile().load(4 * thread_id()));
             });
  expect_bad(FaultKind::kAsyncCopy, {"write to shared byte", "asynchronous copy"}, 32, [this] {
    copy_mine();
    async_commit();
    tile().store(4 * thread_id() + 3, 0);
  });
  expect_bad(FaultKind::kAsyncCopy, {"read of shared byte"}, 64, [this] {
    copy_mine();
    block_barrier();  // waits for no copy
    static_cast<void>(tile().load(4 * (63 - thread_id())));
  });
}

TEST_F(EmulatorAsyncCopy, OthersNeedABarrierAfterTheWait) {
  const auto through = [this](bool barrier) {
    return [this, barrier] {
      if (lane_id() == 3) {
        async_copy_16(tile(), Global<const int>(words()), true);
        async_commit();
        async_wait<0>();
      }
      if (barrier) warp_barrier();
      shuffle(1, 0);  // later, but not ordered
      EXPECT_EQ(tile().load(2), 2);
    };
  };
  expect_good(32, through(true));
  expect_bad(FaultKind::kRace, {"read of shared byte 8 races with the write by thread 3 "}, 32,
             through(false));
}

TEST_F(EmulatorAsyncCopy, MustNotOvertakeReaders) {
  const auto after_reading = [this](bool barrier) {
    return [this, barrier] {
      tile().store(thread_id(), 1);
      block_barrier();
      const int read = warp_id() == 1 ? tile().load(0) : 1;
      EXPECT_EQ(read, 1);
      if (barrier) block_barrier();
      if (thread_id() > 0) return;
      copy_mine();
      async_commit();
      async_wait<0>();
    };
  };
  expect_good(64, after_reading(true));
  expect_bad(FaultKind::kRace, {"races with the", "no block_barrier between"}, 64,
             after_reading(false));
}

TEST_F(EmulatorAsyncCopy, WaitsGroupByGroup) {
  const auto stages = [this](bool early) {
    return [this, early] {
      for (int group = 0; group < 3; ++group) {
        async_copy_16(tile() + 4 * (thread_id() + 32 * group), Global<const int>(words()), true);
        async_commit();
      }
      async_wait<1>();  // the first two
      EXPECT_EQ(tile().load(4 * thread_id() + 3), 3);
      EXPECT_EQ(tile().load(4 * (thread_id() + 32) + 3), 3);
      if (!early) async_wait<0>();
      EXPECT_EQ(tile().load(4 * (thread_id() + 64) + 3), 3);
      async_wait<0>();
    };
  };
  expect_good(32, stages(false));
  expect_bad(FaultKind::kAsyncCopy, {"read of shared byte"}, 32, stages(true));
}

TEST_F(EmulatorAsyncCopy, WithoutACommitIsNeverWaitedFor) {
  expect_bad(FaultKind::kAsyncCopy, {"returns with 1 asynchronous"}, 32, [this] {
    copy_mine();
    async_wait<0>();
  });
  expect_bad(FaultKind::kAsyncCopy, {"returns with 1 asynchronous"}, 32, [this] {
    copy_mine();
    async_commit();
  });
}

TEST_F(EmulatorAsyncCopy, IsChecked) {
  const auto to_word = [this](int shared, std::int64_t global) {
    return [this, shared, global] {
      if (thread_id() == 7)
        async_copy_16(tile() + shared, Global<const int>(words() + global), true);
    };
  };
  expect_bad(FaultKind::kMisaligned, {"thread 7 ", "asynchronous copy of 16 bytes at byte 8"}, 32,
             to_word(2, 0));
  expect_bad(FaultKind::kOutOfBounds, {"asynchronous copy of 16 bytes at byte 2048"}, 32,
             to_word(512, 0));
  expect_bad(FaultKind::kMisaligned, {"thread 7 (warp 0, lane 7)"}, 32, to_word(0, 2));
  expect_bad(FaultKind::kOutOfBounds, {"thread 7 (warp 0, lane 7)"}, 32, to_word(0, kWords));
}

TEST_F(EmulatorAsyncCopy, SabotagesAreFoundOrChangeTheResult) {
  const auto good = [this] {
    copy_mine();
    async_commit();
    async_wait<0>();
    EXPECT_EQ(tile().load(4 * thread_id()), 4 * thread_id());
  };
  for (const char* id : {"async_wait_ignored", "async_commit_ignored"}) {
    emulator::plant({.id = id, .kernel = "under"});
    EXPECT_TRUE(launch(32, good).found) << id;
    emulator::plant({.id = id, .kernel = "another"});
    EXPECT_FALSE(launch(32, good).found) << id;
  }
  emulator::plant({.id = "async_zero_fill_ignored", .kernel = ""});
  const auto fault = launch(32, [this] {
    copy_mine(false);
    async_commit();
    async_wait<0>();
    EXPECT_EQ(tile().load(4 * thread_id()), -1);  // the poison
  });
  EXPECT_FALSE(fault.found) << fault.what;
}

// ---- Global memory -----------------------------------------------------------------------------

TEST_F(EmulatorAsyncCopy, LanesReadWriteAndAddInGlobalMemory) {
  expect_good(32, [this] {
    if (blockIdx.x != 0) return;
    const auto mine = words() + thread_id() * 16;
    mine.store_as(0, make_int4(1, 2, 3, 4));
    EXPECT_EQ(mine.load_as<int2>(2).y, 4);
    mine.store(5, mine.load(1));
    EXPECT_EQ(mine.load(5), 2);
  });
  int zero = 0;
  ASSERT_EQ(cudaMemcpy(words_, &zero, sizeof zero, cudaMemcpyHostToDevice), cudaSuccess);
  const auto fault = launch(64, [this] { words().add(0, 3); });  // two blocks
  EXPECT_FALSE(fault.found) << fault.what;
  int sum = 0;
  ASSERT_EQ(cudaMemcpy(&sum, words_, sizeof sum, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(sum, 2 * 64 * 3);
}

TEST_F(EmulatorAsyncCopy, FaultsOfGlobalMemoryNameTheLane) {
  expect_bad(FaultKind::kOutOfBounds,
             {"kernel 'under_test', block (1, 0, 0), thread 21 (warp 0, lane 21)"}, 32, [this] {
               if (blockIdx.x == 1 && thread_id() == 21) static_cast<void>(words().load(kWords));
             });
  expect_bad(FaultKind::kMisaligned, {"thread 0 "}, 32, [this] {
    if (thread_id() == 0) static_cast<void>(words().load_as<int4>(1));
  });
}

TEST_F(EmulatorAsyncCopy, GlobalSectorsAreCounted) {
  emulator::count_accesses(true);
  const auto fault = launch(32, [this] {
    static_cast<void>(words().load(thread_id()));               // 4 sectors
    static_cast<void>(words().load(thread_id() * 8));           // 32
    static_cast<void>(words().load_as<int4>(4 * thread_id()));  // 16
  });
  emulator::count_accesses(false);
  EXPECT_FALSE(fault.found) << fault.what;
  const std::vector<emulator::KernelCounts> counts = emulator::take_counts();
  ASSERT_EQ(counts.size(), 1u);
  EXPECT_EQ(counts[0].global_requests, 2 * 3);
  EXPECT_EQ(counts[0].global_sectors, 2 * (4 + 32 + 16));
  EXPECT_EQ(counts[0].shared_requests, 0);
}

}  // namespace
}  // namespace sp::emulated
