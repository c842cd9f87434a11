// TSan sees every lane as a thread of its own, ordered by the barriers of its block or warp and by
// nothing else: what lanes do to memory that the emulator does not check is checked by TSan.
// A program of its own, because the races that it plants must not end it.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "tests/emulated/lanes.hpp"

#ifdef SP_SANITIZE_THREAD
namespace {
int reports = 0;
}
extern "C" {
const char* __tsan_default_options() { return "exitcode=0"; }
void __tsan_on_report(void*) { ++reports; }
}
#endif

namespace sp::emulated {
namespace {

// How many races TSan reports while the lanes run.
int races_of(const Lanes& shape, const std::function<void(std::vector<int>&)>& body) {
#ifdef SP_SANITIZE_THREAD
  const int before = reports;
  static std::deque<std::vector<int>> kept;  // TSan reports an address once
  std::vector<int>& words = kept.emplace_back(shape.threads);
  emulator::run_kernel(lanes_launch(shape, [&] { body(words); }));
  return reports - before;
#else
  static_cast<void>(shape);
  static_cast<void>(body);
  return 0;
#endif
}

class EmulatorTsan : public testing::Test {
 protected:
  void SetUp() override {
#ifndef SP_SANITIZE_THREAD
    GTEST_SKIP() << "built without TSan";
#endif
  }
};

int& mine(std::vector<int>& words) { return words[static_cast<std::size_t>(thread_id())]; }
int& neighbours(std::vector<int>& words) {
  return words[(static_cast<std::size_t>(thread_id()) + 1) % words.size()];
}

TEST_F(EmulatorTsan, SeesAMissingBlockBarrier) {
  const auto body = [](bool barrier) {
    return [barrier](std::vector<int>& words) {
      mine(words) = 1;
      if (barrier) block_barrier();
      EXPECT_GE(neighbours(words), 0);
    };
  };
  EXPECT_EQ(races_of({.threads = 64}, body(true)), 0);
  EXPECT_GT(races_of({.threads = 64}, body(false)), 0);
}

TEST_F(EmulatorTsan, SeesThatAShuffleIsNoBarrierOfTheWarp) {
  const auto body = [](bool barrier) {
    return [barrier](std::vector<int>& words) {
      for (int i = 0; i < 3; ++i) {
        mine(words) = i;
        barrier ? warp_barrier() : static_cast<void>(shuffle(1, 0));
        EXPECT_GE(neighbours(words), 0);
        barrier ? warp_barrier() : static_cast<void>(shuffle(1, 0));
      }
    };
  };
  EXPECT_EQ(races_of({}, body(true)), 0);
  EXPECT_GT(races_of({}, body(false)), 0);
}

TEST_F(EmulatorTsan, SeesThatAWarpBarrierIsNotTheBlocks) {
  const auto body = [](std::vector<int>& words) {
    mine(words) = 1;
    warp_barrier();
    EXPECT_GE(neighbours(words), 0);  // lane 31's is another warp's
  };
  EXPECT_GT(races_of({.threads = 64}, body), 0);
}

TEST_F(EmulatorTsan, FindsNothingInWhatTheEmulatorDoesItself) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    const Lanes shape{.threads = 96, .shared_bytes = 4096, .blocks = 3, .seed = seed};
    EXPECT_EQ(races_of(shape,
                       [](std::vector<int>& words) {
                         const auto tile = shared_memory<int>(0);
                         for (int i = 0; i < 4; ++i) {
                           tile.store(thread_id() * 4 + i, i);
                         }
                         block_barrier();
                         std::uint32_t r[4];
                         load_matrix_x4(r, tile + lane_id() * 4);
                         float c[4] = {};
                         mma_16x8x16<__half>(c, r, r[0], r[1]);
                         mine(words) += static_cast<int>(warp_sum(c[0])) + tile.load(lane_id());
                       }),
              0);
  }
}

}  // namespace
}  // namespace sp::emulated
