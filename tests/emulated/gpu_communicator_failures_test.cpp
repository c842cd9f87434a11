// What goes wrong between the ranks of GPUs, over either transport, and what is measured.
// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated/gpu_communicators.hpp"

namespace sp::test {
namespace {

using NcclFailures = GpuCommunicators;

TEST_F(NcclFailures, AnOperationMayBeLeftUnwaited) {
  run({0, 3}, [](Rank& r) {
    {
      const Tensor x = r.written(2, r.comm.rank());
      (void)r.comm.all_reduce(x, {"x", 0});  // the tensor and the operation end here
    }
    const Tensor y = r.written(2, r.comm.rank());
    r.comm.all_reduce(y, {"y", 0}).wait();
    EXPECT_EQ(r.read(y).size(), 4u);
  });
}

TEST_F(NcclFailures, WaitingIsMeasuredOnTheComputeStream) {
  run({0, 2}, [](Rank& r) {
    r.meter.measure(true);
    const Tensor x = r.written(1, 0);
    if (r.comm.rank() == 1) std::this_thread::sleep_for(100ms);
    r.comm.all_reduce(x, {"x", 0}).wait();
    const double waited = r.meter.take().exposed_s;
    if (r.comm.rank() == 0) {
      EXPECT_GE(waited, 0.05);
    }
    EXPECT_LE(waited, 10.0);
    EXPECT_EQ(r.meter.take().exposed_s, 0.0);
  });
}

// What goes wrong, over either transport.
void exchange_while_rank_1_sleeps(Rank& r) {
  if (r.comm.rank() == 1) std::this_thread::sleep_for(1s);  // neither computes nor waits
  const Tensor mine = r.written(2, r.comm.rank()), theirs = r.blank(2);
  r.comm.exchange({{r.next(), mine, {"k", 3}}}, {{r.previous(), theirs, {"k", 3}}}).wait();
  r.gpu.synchronize();
}
void split_without_rank_1(Rank& r) {
  if (r.comm.rank() == 1) {
    std::this_thread::sleep_for(1s);
  } else {
    r.comm.split(0, 0);
  }
}
void fail_on_rank_2(Rank& r) {
  const Tensor x = r.written(2, r.comm.rank());
  r.comm.all_reduce(x, {"x", 0}).wait();
  r.gpu.synchronize();
  if (r.comm.rank() == 2) throw Error(ErrorKind::kInternal, "no more paper");
  r.comm.all_reduce(x, {"x", 1}).wait();
  r.gpu.synchronize();
}
void sum_what_nobody_wrote(Rank& r) {
  const Tensor x = r.blank(2);
  r.comm.all_reduce(x, {"x", 0}).wait();
  r.gpu.synchronize();
}
void sum_two_sizes(Rank& r) {
  const Tensor x = r.written(2 + r.comm.rank(), r.comm.rank());
  r.comm.all_reduce(x, {"x", 0}).wait();
  r.gpu.synchronize();
}

TEST_F(NcclFailures, ATimeOutSaysWhatEveryRankWaitsFor) {
  const std::string text = failure_of({0, 3}, exchange_while_rank_1_sleeps, 300ms);
  expect_says(text, {"the time limit of 0.3 s has passed", "rank 2 of the world waits since 0.3 s",
                     "for k step 3 (16 bytes) from rank 1", "exchange"});
}

TEST_F(NcclFailures, ASplitThatOnePeerNeverMakesTimesOut) {
  const std::string text = failure_of({0, 2}, split_without_rank_1, 200ms);
  expect_says(text, {"rank 0", "the time limit of 0.2 s has passed in a call of NCCL"});
  emulator::take_fault();  // the emulator's NCCL names the abort
}

TEST_F(NcclFailures, OneFailingRankEndsTheOthers) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(failure_of({0, 4}, fail_on_rank_2), "rank 2: no more paper");
  EXPECT_LE(std::chrono::steady_clock::now() - begin, 10s);
}

TEST_F(NcclFailures, AFaultOnOneDeviceEndsAll) {
  expect_says(failure_of({0, 2}, sum_what_nobody_wrote), {"rank ", "uninitialised"});
  for (int rank = 0; rank < 2; ++rank) {
    cudaSetDevice(rank);
    cudaDeviceReset();
  }
  emulator::take_fault();
}

TEST_F(NcclFailures, ASizeThatDiffersIsNamedWithBothSides) {
  expect_says(failure_of({0, 2}, sum_two_sizes), {"the counts differ", "4 f32", "6 f32"});
  emulator::take_fault();
}

using LocalFailures = GpuCommunicators;

TEST_F(LocalFailures, CopiesAndWaitsAreMeasured) {
  run({2, 2}, [](Rank& r) {
    r.meter.measure(true);
    const Tensor x = r.written(1, 0), y = r.blank(1);
    r.comm.exchange({{r.next(), x, {"x", 0}}}, {{r.previous(), y, {"x", 0}}}).wait();
    const CommunicationMeter::Cost cost = r.meter.take();
    EXPECT_GT(cost.total_s, 0);
    EXPECT_GE(cost.exposed_s, 0);
    EXPECT_EQ(r.meter.take().total_s, 0);
  });
}

TEST_F(LocalFailures, ATimeOutSaysWhatEveryRankWaitsFor) {
  const std::string text = failure_of({2, 3}, exchange_while_rank_1_sleeps, 300ms);
  expect_says(text, {"0.3 s", "rank 2", "k step 3 (16 bytes) from rank 1"});
}

TEST_F(LocalFailures, ASplitThatOnePeerNeverMakesTimesOut) {
  const std::string text = failure_of({1, 2}, split_without_rank_1, 200ms);
  expect_says(text, {"0.2 s", "split step 0", "from rank 1"});
}

TEST_F(LocalFailures, OneFailingRankEndsTheOthers) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(failure_of({3, 4}, fail_on_rank_2), "rank 2: no more paper");
  EXPECT_LE(std::chrono::steady_clock::now() - begin, 10s);
}

TEST_F(LocalFailures, AFaultOfADeviceEndsAll) {
  for (const int devices : {1, 2}) {
    expect_says(failure_of({devices, 2}, sum_what_nobody_wrote), {"rank ", "uninitialised"});
    for (int d = 0; d < devices; ++d) {
      cudaSetDevice(d);
      cudaDeviceReset();
    }
    emulator::take_fault();
  }
}

// Of the message before its copy, and of the copy before the buffer is used again.
TEST_F(LocalFailures, StreamsThatDoNotWaitAreFound) {
  for (const int devices : {1, 2, 3}) {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      emulator::configure({.seed = seed});
      emulator::plant({"stream_wait_ignored", ""});
      const std::string text = failure_of({devices, 3}, [](Rank& r) {
        const Tensor mine = r.written(2, r.comm.rank()), theirs = r.blank(2);
        r.comm.exchange({{r.next(), mine, {"k", 0}}}, {{r.previous(), theirs, {"k", 0}}}).wait();
        r.read(theirs);
      });
      EXPECT_TRUE(emulator::take_fault().found) << text;
      emulator::configure({});
    }
  }
}

TEST_F(LocalFailures, PoolsThatWereNotSharedAreFound) {
  const Body exchange = [](Rank& r) {
    const Tensor mine = r.written(2, r.comm.rank()), theirs = r.blank(2);
    r.comm.exchange({{r.next(), mine, {"k", 0}}}, {{r.previous(), theirs, {"k", 0}}}).wait();
    r.gpu.synchronize();
  };
  EXPECT_EQ(failure_of({.devices = 2, .ranks = 2}, exchange), "");
  emulator::configure({});  // pools stay shared
  expect_says(failure_of({.devices = 2, .ranks = 2, .pools_are_shared = false}, exchange),
              {"cudaMemcpyAsync between ranks", "gave device", "no access"});
  emulator::take_fault();
}

TEST_F(LocalFailures, DevicesThatCannotReachEachOtherAreNamed) {
  EXPECT_NO_THROW(SP_GPU::check_reach(3));
  emulator::configure({.peers = false});
  EXPECT_NO_THROW(SP_GPU::check_reach(1));
  EXPECT_NO_THROW(Gpu(0, 3));  // which NCCL does not need
  try {
    SP_GPU::check_reach(2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kEnvironment);
    expect_says(error.what(), {"GPUs 0 and 1 cannot reach each other's memory",
                               "CUDA_VISIBLE_DEVICES=0", "--transport nccl"});
  }
}

TEST_F(LocalFailures, ASizeThatDiffersIsNamedWithBothSides) {
  expect_says(failure_of({1, 2}, sum_two_sizes), {"x step 0", "8 bytes", "12 bytes"});
}

}  // namespace
}  // namespace sp::test
