// What NCCL's documentation forbids, or what would hang, the emulator finds and names.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <chrono>

#include "tests/emulated/nccl_ranks.hpp"

namespace sp::test {
namespace {

using emulator::FaultKind;

// A call of a rank on buffers of 8 elements.
using Call = std::function<ncclResult_t(const NcclRank&, float* from, float* to)>;

Call send(std::size_t count, int peer, ncclDataType_t type = ncclFloat32) {
  return [=](const NcclRank& r, float* from, float*) {
    return ncclSend(from, count, type, peer, r.comm, r.stream);
  };
}
Call receive(std::size_t count, int peer, ncclDataType_t type = ncclFloat32) {
  return [=](const NcclRank& r, float*, float* to) {
    return ncclRecv(to, count, type, peer, r.comm, r.stream);
  };
}
Call reduce_all(std::size_t count, ncclDataType_t type = ncclFloat32, ncclRedOp_t op = ncclSum) {
  return [=](const NcclRank& r, float* from, float* to) {
    return ncclAllReduce(from, to, count, type, op, r.comm, r.stream);
  };
}
Call broadcast(int root) {
  return [=](const NcclRank& r, float* from, float* to) {
    return ncclBroadcast(from, to, 4, ncclFloat32, root, r.comm, r.stream);
  };
}

Floats eight() { return Floats(8, 1); }

// Rank r makes calls[r], and waits; nobody may hang.
void make_calls(const std::vector<Call>& calls) {
  on_nccl_ranks(static_cast<int>(calls.size()), [&](const NcclRank& r) {
    float *from = r.put(eight()), *to = r.put(eight());
    const Call& call = calls[static_cast<std::size_t>(r.rank)];
    if (call) call(r, from, to);
    cudaStreamSynchronize(r.stream);
  });
}

TEST_F(EmulatedNccl, WhatDiffersBetweenTwoSidesIsNamedWithBoth) {
  const auto expect = [](const Call& zero, const Call& one, const std::vector<std::string>& words) {
    emulator::configure({});
    make_calls({zero, one});
    expect_fault(FaultKind::kCollective, words);
  };
  expect(send(8, 1), receive(4, 0),
         {"the counts differ", "ncclSend of 8 f32", "ncclRecv of 4 f32"});
  expect(send(4, 1), receive(4, 0, ncclInt32), {"the data types differ", "4 f32", "4 i32"});
  expect(reduce_all(4), reduce_all(5), {"the counts differ", "rank 0", "rank 1"});
  expect(reduce_all(4), reduce_all(4, ncclInt32), {"the data types differ"});
  expect(reduce_all(4), reduce_all(4, ncclFloat32, ncclMax), {"the reductions", "sum", "maximum"});
  expect(broadcast(0), broadcast(1), {"the roots differ", "root 0", "root 1"});
  expect(reduce_all(4), broadcast(0), {"the operations differ", "ncclAllReduce", "ncclBroadcast"});
}

TEST_F(EmulatedNccl, ArgumentsOutsideTheDocumentationAreRefused) {
  const auto expect = [](const Call& call, const std::string& words) {
    emulator::configure({});
    on_nccl_ranks(1, [&](const NcclRank& r) {
      float *from = r.put(eight()), *to = r.put(eight());
      EXPECT_EQ(call(r, from, to), ncclInvalidArgument);
      EXPECT_NE(std::string(ncclGetLastError(r.comm)).find(words), std::string::npos);
    });
    expect_fault(FaultKind::kApi, {words});
  };
  expect(send(1, 1), "there are ranks 0 to 0");
  expect(receive(1, -1), "there are ranks 0 to 0");
  expect(broadcast(3), "there are ranks 0 to 0");
  expect(reduce_all(4, ncclUint8), "not reduced");
  expect(reduce_all(4, static_cast<ncclDataType_t>(77)), "data type 77");
  expect(reduce_all(4, ncclFloat32, static_cast<ncclRedOp_t>(9)), "reduction 9");
  expect([](const NcclRank& r, float* from,
            float*) { return ncclAllGather(from + 1, from, 4, ncclFloat32, r.comm, r.stream); },
         "not at the documented in-place position");
  expect(
      [](const NcclRank& r, float* from, float* to) {
        ncclGroupStart();
        ncclSend(from, 4, ncclFloat32, 0, r.comm, r.stream);
        ncclRecv(to, 4, ncclFloat32, 0, r.comm, r.stream);
        ncclSend(to + 3, 4, ncclFloat32, 0, r.comm, r.stream);
        ncclRecv(from + 4, 4, ncclFloat32, 0, r.comm, r.stream);
        return ncclGroupEnd();
      },
      "in the same group");
  expect(
      [](const NcclRank& r, float* from, float* to) {
        cudaStream_t other = nullptr;
        cudaStreamCreate(&other);
        ncclGroupStart();
        ncclSend(from, 4, ncclFloat32, 0, r.comm, r.stream);
        ncclRecv(to, 4, ncclFloat32, 0, r.comm, other);
        return ncclGroupEnd();
      },
      "two streams in one group");
  expect(
      [](const NcclRank& r, float* from, float*) {
        cudaSetDevice(1);
        return ncclSend(from, 4, ncclFloat32, 0, r.comm, r.stream);
      },
      "of device 0, the current one is 1");
  expect([](const NcclRank&, float*, float*) { return ncclGroupEnd(); }, "no group is open");
}

TEST_F(EmulatedNccl, ACommunicatorIsUsedFromItsJoiningToItsEnd) {
  on_nccl_ranks(1, [](const NcclRank& r) {
    float* x = r.put(eight());
    ncclCommFinalize(r.comm);
    EXPECT_EQ(reduce_all(4)(r, x, x), ncclInvalidArgument);
    ncclCommDestroy(r.comm);
    EXPECT_EQ(reduce_all(4)(r, x, x), ncclInvalidArgument);
    EXPECT_EQ(ncclCommDestroy(r.comm), ncclInvalidArgument);
    EXPECT_EQ(ncclCommAbort(nullptr), ncclInvalidArgument);
  });
  expect_fault(FaultKind::kApi, {"finalized"});
  on_nccl_ranks(1, [](const NcclRank& r) {
    ncclCommDestroy(r.comm);
    int count = 0;
    EXPECT_EQ(ncclCommCount(r.comm, &count), ncclInvalidArgument);
  });
  expect_fault(FaultKind::kApi, {"ncclCommCount", "destroyed"});
}

TEST_F(EmulatedNccl, JoiningHasRules) {
  const auto join = [](const std::vector<std::array<int, 3>>& ranks) {  // rank, size, device
    ncclUniqueId id;
    ncclGetUniqueId(&id);
    std::vector<std::jthread> threads;
    for (const auto& [rank, size, device] : ranks) {
      threads.emplace_back([=] {
        cudaSetDevice(device);
        ncclComm_t comm = nullptr;
        EXPECT_NE(ncclCommInitRank(&comm, size, id, rank), ncclSuccess);
      });
    }
  };
  join({{0, 2, 0}, {1, 2, 0}});
  expect_fault(FaultKind::kApi, {"on device 0"});
  join({{0, 2, 0}, {0, 2, 1}});
  expect_fault(FaultKind::kApi, {"two ranks 0"});
  join({{0, 2, 0}, {1, 3, 1}});
  expect_fault(FaultKind::kCollective, {"ranks, another one"});
  join({{2, 2, 0}});
  expect_fault(FaultKind::kApi, {"rank 2 of 2"});
  ncclComm_t comm = nullptr;
  EXPECT_EQ(ncclCommInitRank(&comm, 1, ncclUniqueId{}, 0), ncclInvalidArgument);
  expect_fault(FaultKind::kApi, {"never given out"});
}

// Joins two ranks that do not block in NCCL.
void on_two_nonblocking_ranks(const std::function<void(const NcclRank&)>& body) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      NcclRank self{rank, 2};
      cudaSetDevice(rank);
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      EXPECT_EQ(ncclCommInitRankConfig(&self.comm, 2, id, rank, &config), ncclInProgress);
      EXPECT_EQ(cudaStreamCreateWithFlags(&self.stream, cudaStreamNonBlocking), cudaSuccess);
      body(self);
    });
  }
}

ncclResult_t done_with(ncclComm_t comm) {
  ncclResult_t state = ncclInProgress;
  while (state == ncclInProgress && ncclCommGetAsyncError(comm, &state) == ncclSuccess)
    std::this_thread::yield();
  return state;
}

TEST_F(EmulatedNccl, ANonBlockingCommunicatorIsUsedWhenItSaysSo) {
  on_two_nonblocking_ranks([](const NcclRank& r) {
    ASSERT_EQ(done_with(r.comm), ncclSuccess);
    ncclComm_t second = nullptr;
    ASSERT_EQ(ncclCommSplit(r.comm, 0, r.rank, &second, nullptr), ncclInProgress);
    ASSERT_EQ(done_with(r.comm), ncclSuccess);
    ASSERT_EQ(done_with(second), ncclSuccess);
    for (const ncclComm_t comm : {second, r.comm}) {
      float* const x = r.put(eight());
      const ncclResult_t posted = ncclAllReduce(x, x, 8, ncclFloat32, ncclSum, comm, r.stream);
      EXPECT_TRUE(posted == ncclSuccess || posted == ncclInProgress);
      EXPECT_EQ(done_with(comm), ncclSuccess);
      EXPECT_EQ(r.take(x, 8), Floats(8, 2));
      ncclCommFinalize(comm);
      EXPECT_EQ(done_with(comm), ncclSuccess);
      EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
    }
  });
  EXPECT_FALSE(emulator::take_fault().found);
  on_two_nonblocking_ranks([](const NcclRank& r) {
    ncclComm_t second = nullptr;
    EXPECT_EQ(ncclCommSplit(r.comm, 0, 0, &second, nullptr), ncclInvalidArgument);
    done_with(r.comm);
  });
  expect_fault(FaultKind::kApi, {"ncclCommSplit", "in progress"});
  on_two_nonblocking_ranks([](const NcclRank& r) {
    done_with(r.comm);
    EXPECT_EQ(ncclCommDestroy(r.comm), ncclInvalidArgument);
  });
  expect_fault(FaultKind::kApi, {"ncclCommDestroy", "finalized first"});
}

TEST_F(EmulatedNccl, AnAbortWhileAnotherThreadIsInsideIsFound) {
  on_nccl_ranks(2, [](const NcclRank& r) {
    if (r.rank == 1) return std::this_thread::sleep_for(std::chrono::milliseconds(300));
    std::jthread other([comm = r.comm] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      ncclCommAbort(comm);
    });
    ncclComm_t part = nullptr;
    EXPECT_NE(ncclCommSplit(r.comm, 0, 0, &part, nullptr), ncclSuccess);  // the peer never comes
  });
  expect_fault(FaultKind::kApi, {"ncclCommAbort", "another thread is inside a call"});
  // Who asks instead of blocking aborts from its own thread, and nothing is wrong with that.
  on_two_nonblocking_ranks([](const NcclRank& r) {
    const ncclResult_t joined = done_with(r.comm);
    if (r.rank == 1) return;  // may have seen the end of the other already
    ASSERT_EQ(joined, ncclSuccess);
    ncclComm_t part = nullptr;
    EXPECT_EQ(ncclCommSplit(r.comm, 0, 0, &part, nullptr), ncclInProgress);
    EXPECT_EQ(ncclCommAbort(r.comm), ncclSuccess);
  });
  EXPECT_FALSE(emulator::take_fault().found);
}

TEST_F(EmulatedNccl, AGroupThatIsNeverClosedIsFoundByTheNextWait) {
  on_nccl_ranks(1, [](const NcclRank& r) {
    float* x = r.put(eight());
    ncclGroupStart();
    reduce_all(4)(r, x, x);
    EXPECT_NE(cudaStreamSynchronize(r.stream), cudaSuccess);
    ncclGroupStart();
    EXPECT_NE(ncclCommDestroy(r.comm), ncclSuccess);
  });
  expect_fault(FaultKind::kApi, {"a group of this thread is open", "ncclAllReduce of 4 f32"});
}

TEST_F(EmulatedNccl, ACycleOfWaitsIsADeadlock) {
  const auto first_send = [](const NcclRank& r, float* from, float* to) {
    ncclSend(from, 1, ncclFloat32, r.next(), r.comm, r.stream);
    return ncclRecv(to, 1, ncclFloat32, r.previous(), r.comm, r.stream);
  };
  make_calls({first_send, first_send, first_send});
  expect_fault(FaultKind::kDeadlock, {"waits in ncclSend of 1 f32 to rank 1 for rank 1",
                                      "rank 2 waits in ncclSend of 1 f32 to rank 0"});
  make_calls({send(1, 0)});
  expect_fault(FaultKind::kDeadlock, {"rank 0 waits in ncclSend of 1 f32 to rank 0 for rank 0"});
  // A collective on one side, a message on the other.
  emulator::configure({});
  make_calls({reduce_all(4), receive(1, 0)});
  expect_fault(FaultKind::kDeadlock, {"ncclAllReduce", "ncclRecv of 1 f32 from rank 0"});
}

TEST_F(EmulatedNccl, AMissingPeerIsADeadlock) {
  on_nccl_ranks(2, [](const NcclRank& r) {
    float* x = r.put(eight());
    if (r.rank == 1) {
      ncclCommDestroy(r.comm);
      return;
    }
    receive(4, 1)(r, x, x);
    EXPECT_NE(cudaStreamSynchronize(r.stream), cudaSuccess);
  });
  expect_fault(FaultKind::kDeadlock, {"waits for rank 1, which has destroyed its communicator"});
  // Rank 1 posts nothing and ends: no thread is left that could.
  emulator::configure({});
  make_calls({receive(4, 1), {}});
  expect_fault(FaultKind::kDeadlock, {"no stream can go on", "ncclRecv of 4 f32 from rank 1"});
}

// Two communicators over the same ranks, used in different orders: streams of their own let it pass
// here, a real device may not.
TEST_F(EmulatedNccl, OrdersOverSeveralCommunicatorsAreCompared) {
  const auto run = [](bool swapped, bool grouped) {
    emulator::configure({});
    on_nccl_ranks(2, [&](const NcclRank& r) {
      ncclComm_t second = nullptr;
      ncclCommSplit(r.comm, 0, r.rank, &second, nullptr);
      cudaStream_t other = nullptr;
      cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
      float *a = r.put(eight()), *b = r.put(eight());
      cudaStreamSynchronize(r.stream);
      const auto first = [&] { ncclAllReduce(a, a, 8, ncclFloat32, ncclSum, r.comm, r.stream); };
      if (grouped) ncclGroupStart();
      if (swapped && r.rank == 1) {
        ncclAllReduce(b, b, 8, ncclFloat32, ncclSum, second, other);
        first();
      } else {
        first();
        ncclAllReduce(b, b, 8, ncclFloat32, ncclSum, second, other);
      }
      if (grouped) ncclGroupEnd();
      cudaStreamSynchronize(r.stream);
      cudaStreamSynchronize(other);
      cudaStreamDestroy(other);
      ncclCommDestroy(second);
      ncclCommDestroy(r.comm);
    });
  };
  run(false, false);
  EXPECT_FALSE(emulator::take_fault().found);
  run(true, true);
  EXPECT_FALSE(emulator::take_fault().found);
  run(true, false);
  expect_fault(FaultKind::kCollective, {"different orders", "rank 0 posts", "rank 1 posts"});
}

TEST_F(EmulatedNccl, BuffersAreCheckedLikeThoseOfKernels) {
  const auto exchange = [](const std::function<void(const NcclRank&, float*, float*)>& before,
                           std::size_t count) {
    emulator::configure({});
    on_nccl_ranks(2, [&](const NcclRank& r) {
      float *from = r.make(8), *to = r.make(8);
      before(r, from, to);
      (r.rank == 0 ? send(count, 1) : receive(count, 0))(r, from, to);
      cudaStreamSynchronize(r.stream);
    });
  };
  const auto fill = [](const NcclRank& r, float* from, float*) {
    cudaMemsetAsync(from, 0, 8 * sizeof(float), r.stream);
  };
  exchange(fill, 8);
  EXPECT_FALSE(emulator::take_fault().found);
  exchange(fill, 9);
  expect_fault(FaultKind::kOutOfBounds, {"ncclSend of 9 f32 to rank 1"});
  exchange([](const NcclRank&, float*, float*) {}, 8);
  expect_fault(FaultKind::kUninitialised, {"ncclSend of 8 f32 to rank 1"});
  // Written on another stream that no event orders before the send.
  exchange(
      [](const NcclRank&, float* from, float*) {
        cudaStream_t other = nullptr;
        cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
        cudaMemsetAsync(from, 0, 8 * sizeof(float), other);
        // Done in time, but only the emulator's host knows.
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      },
      8);
  const emulator::FaultReport report = emulator::take_fault();
  ASSERT_TRUE(report.found);
  EXPECT_TRUE(report.kind == FaultKind::kOrder || report.kind == FaultKind::kUninitialised)
      << report.what;
}

// Two messages into one buffer, read by a copy that waits for the first only.
TEST_F(EmulatedNccl, WhatIsReceivedIsOrderedByEventsAlone) {
  on_nccl_ranks(2, [](const NcclRank& r) {
    float *x = r.put(eight()), *y = r.put(eight());
    cudaStream_t reader = nullptr;
    cudaStreamCreateWithFlags(&reader, cudaStreamNonBlocking);
    (r.rank == 0 ? send(8, 1) : receive(8, 0))(r, x, x);
    cudaMemcpyAsync(y, x, 8 * sizeof(float), cudaMemcpyDeviceToDevice, reader);
    cudaStreamSynchronize(r.stream);
    cudaStreamSynchronize(reader);
  });
  expect_fault(FaultKind::kOrder, {"ncclRecv of 8 f32 from rank 0"});
}

}  // namespace
}  // namespace sp::test
