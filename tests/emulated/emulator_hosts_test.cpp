// Host threads: each drives its device, helps others when it can do nothing, and finds when all of
// them are stuck.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <chrono>
#include <latch>
#include <thread>

#include "tests/emulated/flag_operations.hpp"
#include "tests/emulated/runtime_fixture.hpp"

namespace sp::emulated {
namespace {

void run_ranks(int ranks, const std::function<void(int)>& program) {
  std::latch ready(ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      EXPECT_EQ(cudaSetDevice(rank), cudaSuccess);
      ready.arrive_and_wait();
      program(rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(EmulatorHosts, DevicesRunSideBySide) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    emulator::configure({.seed = seed});
    run_ranks(8, [](int rank) {
      TestStream stream;
      TestFloats x(stream, 64), y(stream, 64);
      fill_in(stream, x, 64, static_cast<float>(rank));
      for (int i = 0; i < 50; ++i) {
        increment_in(stream, y, x, 64);
        increment_in(stream, x, y, 64);
      }
      EXPECT_EQ(download(stream, x.get(), 64)[63], static_cast<float>(rank + 100));
    });
    const FaultReport fault = emulator::take_fault();
    EXPECT_FALSE(fault.found) << fault.what;
  }
}

TEST(EmulatorHosts, WaitersGoOnWhenAnotherDeviceLetsThem) {
  for (const bool polls : {false, true}) {
    emulator::configure({});
    std::atomic<bool> flag{false};
    run_ranks(2, [&](int rank) {
      TestStream stream;
      if (rank == 0) {
        emulator::enqueue(stream, std::make_unique<Waits>(flag, "waits"));
      } else {
        emulator::enqueue(stream, std::make_unique<Raises>(flag));
      }
      if (polls) {
        cudaError_t state = cudaErrorNotReady;
        while (state == cudaErrorNotReady) state = cudaStreamQuery(stream);
        EXPECT_EQ(state, cudaSuccess);
      } else {
        EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      }
    });
    EXPECT_FALSE(emulator::take_fault().found);
  }
}

// A device works on while its host is busy elsewhere, or gone.
TEST(EmulatorHosts, WaitersHelpDevicesThatNobodyWaitsFor) {
  emulator::configure({});
  std::atomic<bool> flag{false};
  std::latch over(2);
  run_ranks(3, [&](int rank) {
    TestStream stream;
    if (rank == 1) {
      emulator::enqueue(stream, std::make_unique<Raises>(flag));
    } else if (rank == 0) {
      emulator::enqueue(stream, std::make_unique<Waits>(flag, "waits"));
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    }
    if (rank < 2) over.arrive_and_wait();
  });
  EXPECT_FALSE(emulator::take_fault().found);
}

TEST(EmulatorHosts, FindADeadlockAndSayWhoWaitsForWhat) {
  for (const bool polls : {false, true}) {
    emulator::configure({});
    std::atomic<bool> never{false};
    run_ranks(3, [&](int rank) {
      TestStream stream;
      emulator::enqueue(stream,
                        std::make_unique<Waits>(never, "receive from " + std::to_string(rank + 1)));
      cudaError_t state = cudaErrorNotReady;
      if (polls && rank == 1) {
        while (state == cudaErrorNotReady) state = cudaStreamQuery(stream);
      } else {
        state = cudaStreamSynchronize(stream);
      }
      EXPECT_EQ(state, cudaErrorLaunchFailure);
      const std::string text = cudaGetErrorString(state);
      EXPECT_NE(text.find("deadlock"), std::string::npos) << text;
    });
    const FaultReport fault = emulator::take_fault();
    EXPECT_EQ(fault.kind, FaultKind::kDeadlock);
    for (const char* line : {"device 0, stream 1: receive from 1 (operation 1, stream 1)",
                             "device 1, stream 1: receive from 2", "device 2, stream 1: receive"}) {
      EXPECT_NE(fault.what.find(line), std::string::npos) << fault.what;
    }
  }
}

// A thread that computes, or sleeps, may still do something.
TEST(EmulatorHosts, NoDeadlockWhileOneIsBusyElsewhere) {
  emulator::configure({});
  std::atomic<bool> flag{false};
  run_ranks(2, [&](int rank) {
    TestStream stream;
    if (rank == 0) {
      emulator::enqueue(stream, std::make_unique<Waits>(flag, "waits"));
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(150));
      flag = true;
      emulator::notify_all_hosts();
    }
  });
  EXPECT_FALSE(emulator::take_fault().found);
}

TEST(EmulatorHosts, ADeadlockIsFoundWhenTheOthersAreGone) {
  emulator::configure({});
  std::atomic<bool> never{false};
  run_ranks(2, [&](int rank) {
    if (rank == 1) return;
    TestStream stream;
    emulator::enqueue(stream, std::make_unique<Waits>(never, "waits in vain"));
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
  });
  EXPECT_EQ(emulator::take_fault().kind, FaultKind::kDeadlock);
}

TEST(EmulatorHosts, TheCurrentDeviceIsTheThreadsOwn) {
  emulator::configure({});
  run_ranks(4, [](int rank) {
    int current = -1;
    EXPECT_EQ(cudaGetDevice(&current), cudaSuccess);
    EXPECT_EQ(current, rank);
  });
  int current = -1;
  cudaGetDevice(&current);
  EXPECT_EQ(current, 0);
}

}  // namespace
}  // namespace sp::emulated
