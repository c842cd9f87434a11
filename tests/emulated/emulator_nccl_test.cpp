// The emulator's NCCL does what NCCL's documentation says.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <chrono>
#include <set>

#include "tests/emulated/nccl_ranks.hpp"

namespace sp::test {
namespace {

using emulator::FaultKind;

TEST_F(EmulatedNccl, MessagesBetweenTwoRanksMatchInTheOrderOfTheirPosts) {
  on_nccl_ranks(3, [](const NcclRank& r) {
    const auto x = static_cast<float>(r.rank);
    float *a = r.put({x, x + 10}), *b = r.put({x + 100});
    float *c = r.make(2), *d = r.make(1);
    ncclGroupStart();
    ncclSend(a, 2, ncclFloat32, r.next(), r.comm, r.stream);
    ncclRecv(c, 2, ncclFloat32, r.previous(), r.comm, r.stream);
    ncclSend(b, 1, ncclFloat32, r.next(), r.comm, r.stream);
    ncclRecv(d, 1, ncclFloat32, r.previous(), r.comm, r.stream);
    EXPECT_EQ(ncclGroupEnd(), ncclSuccess);
    const auto y = static_cast<float>(r.previous());
    EXPECT_EQ(r.take(c, 2), (Floats{y, y + 10}));
    EXPECT_EQ(r.take(d, 1), (Floats{y + 100}));
  });
}

TEST_F(EmulatedNccl, AMessageToOneselfNeedsOneGroup) {
  on_nccl_ranks(1, [](const NcclRank& r) {
    float *a = r.put({3}), *b = r.make(1);
    ncclGroupStart();
    ncclRecv(b, 1, ncclFloat32, 0, r.comm, r.stream);
    ncclSend(a, 1, ncclFloat32, 0, r.comm, r.stream);
    ncclGroupEnd();
    EXPECT_EQ(r.take(b, 1), (Floats{3}));
  });
}

TEST_F(EmulatedNccl, CollectivesDeliver) {
  on_nccl_ranks(4, [](const NcclRank& r) {
    const auto x = static_cast<float>(r.rank);
    float* mine = r.put({x, 10 * x});
    float* all = r.make(8);
    EXPECT_EQ(ncclAllGather(mine, all, 2, ncclFloat32, r.comm, r.stream), ncclSuccess);
    EXPECT_EQ(r.take(all, 8), (Floats{0, 0, 1, 10, 2, 20, 3, 30}));

    float* sums = r.make(2);
    EXPECT_EQ(ncclReduceScatter(all, sums, 2, ncclFloat32, ncclSum, r.comm, r.stream), ncclSuccess);
    EXPECT_EQ(r.take(sums, 2), (Floats{4 * x, 40 * x}));

    float* total = r.make(2);
    EXPECT_EQ(ncclAllReduce(mine, total, 2, ncclFloat32, ncclSum, r.comm, r.stream), ncclSuccess);
    EXPECT_EQ(r.take(total, 2), (Floats{6, 60}));
    EXPECT_EQ(ncclAllReduce(mine, total, 2, ncclFloat32, ncclMax, r.comm, r.stream), ncclSuccess);
    EXPECT_EQ(r.take(total, 2), (Floats{3, 30}));

    float* root = r.put({-1, -1});
    EXPECT_EQ(ncclReduce(mine, root, 2, ncclFloat32, ncclSum, 2, r.comm, r.stream), ncclSuccess);
    EXPECT_EQ(r.take(root, 2), r.rank == 2 ? (Floats{6, 60}) : (Floats{-1, -1}));

    EXPECT_EQ(ncclBroadcast(mine, root, 2, ncclFloat32, 3, r.comm, r.stream), ncclSuccess);
    EXPECT_EQ(r.take(root, 2), (Floats{3, 30}));
  });
}

TEST_F(EmulatedNccl, CollectivesWorkInPlaceAtTheDocumentedPositions) {
  on_nccl_ranks(3, [](const NcclRank& r) {
    const auto x = static_cast<float>(r.rank);
    float* all = r.put({x, x, x});
    EXPECT_EQ(ncclAllGather(all + r.rank, all, 1, ncclFloat32, r.comm, r.stream), ncclSuccess);
    EXPECT_EQ(r.take(all, 3), (Floats{0, 1, 2}));
    EXPECT_EQ(ncclReduceScatter(all, all + r.rank, 1, ncclFloat32, ncclSum, r.comm, r.stream),
              ncclSuccess);
    EXPECT_EQ(r.take(all + r.rank, 1), (Floats{3 * x}));
    EXPECT_EQ(ncclBroadcast(all, all, 3, ncclFloat32, 0, r.comm, r.stream), ncclSuccess);
    EXPECT_EQ(ncclAllReduce(all, all, 3, ncclFloat32, ncclSum, r.comm, r.stream), ncclSuccess);
    EXPECT_EQ(r.take(all, 3), (Floats{0, 3, 6}));
  });
}

TEST_F(EmulatedNccl, SumsAreAddedInAnOrderThatTheSeedChooses) {
  std::set<float> sums;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    emulator::configure({.seed = seed});
    std::array<float, 3> of_ranks{};
    on_nccl_ranks(3, [&](const NcclRank& r) {
      constexpr float kTerms[] = {1, 1e8f, -1e8f};
      float* x = r.put({kTerms[r.rank]});
      ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, r.comm, r.stream);
      of_ranks[static_cast<std::size_t>(r.rank)] = r.take(x, 1)[0];
    });
    EXPECT_EQ(of_ranks[0], of_ranks[1]);
    EXPECT_EQ(of_ranks[0], of_ranks[2]);
    sums.insert(of_ranks[0]);
  }
  EXPECT_EQ(sums, (std::set<float>{0, 1}));
}

TEST_F(EmulatedNccl, SixteenBitSumsRoundAfterEveryStep) {
  on_nccl_ranks(2, [](const NcclRank& r) {
    // bf16 1 and 2^-8: the sum rounds to 1.
    const std::uint16_t bits = r.rank == 0 ? 0x3f80 : 0x3b80;
    void* x = nullptr;
    emulator::cudaMalloc(&x, 2);
    cudaMemcpy(x, &bits, 2, cudaMemcpyHostToDevice);
    ncclAllReduce(x, x, 1, ncclBfloat16, ncclSum, r.comm, r.stream);
    cudaStreamSynchronize(r.stream);
    std::uint16_t sum = 0;
    cudaMemcpy(&sum, x, 2, cudaMemcpyDeviceToHost);
    EXPECT_EQ(sum, 0x3f80);
  });
}

TEST_F(EmulatedNccl, TwoCommunicatorsOfOneGpuDoNotHoldEachOtherUp) {
  on_nccl_ranks(2, [](const NcclRank& r) {
    ncclComm_t second = nullptr;
    ASSERT_EQ(ncclCommSplit(r.comm, 0, r.rank, &second, nullptr), ncclSuccess);
    cudaStream_t stream = nullptr;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    float *x = r.put({1}), *y = r.put({2});
    // Posted in opposite orders; on one communicator this would be a mismatch or a deadlock.
    const auto first = [&] { ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, r.comm, r.stream); };
    if (r.rank == 0) first();
    ncclAllReduce(y, y, 1, ncclFloat32, ncclSum, second, stream);
    if (r.rank == 1) first();
    EXPECT_EQ(r.take(x, 1), (Floats{2}));
    cudaStreamSynchronize(stream);
    EXPECT_EQ(r.take(y, 1), (Floats{4}));
  });
}

TEST_F(EmulatedNccl, SplitsOrderRanksByKey) {
  on_nccl_ranks(5, [](const NcclRank& r) {
    ncclComm_t part = nullptr;
    const int colour = r.rank == 4 ? NCCL_SPLIT_NOCOLOR : r.rank % 2;
    ASSERT_EQ(ncclCommSplit(r.comm, colour, -r.rank, &part, nullptr), ncclSuccess);
    EXPECT_EQ(part == nullptr, r.rank == 4);
    if (part == nullptr) return;
    int rank = -1, size = -1, device = -1;
    ncclCommUserRank(part, &rank);
    ncclCommCount(part, &size);
    ncclCommCuDevice(part, &device);
    EXPECT_EQ(size, 2);
    EXPECT_EQ(rank, r.rank < 2 ? 1 : 0);
    EXPECT_EQ(device, r.rank);
    float *mine = r.put({static_cast<float>(r.rank)}), *all = r.make(2);
    ncclAllGather(mine, all, 1, ncclFloat32, part, r.stream);
    const auto c = static_cast<float>(colour);
    EXPECT_EQ(r.take(all, 2), (Floats{2 + c, c}));
  });
}

TEST_F(EmulatedNccl, DataMovesWhenAllHaveReachedTheOperation) {
  on_nccl_ranks(2, [](const NcclRank& r) {
    float* x = r.put({1});
    if (r.rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, r.comm, r.stream);
    if (r.rank == 0) {
      EXPECT_EQ(cudaStreamQuery(r.stream), cudaErrorNotReady);
    }
    EXPECT_EQ(r.take(x, 1), (Floats{2}));
  });
}

TEST_F(EmulatedNccl, AbortEndsWhatIsInFlightAndTellsTheOthers) {
  on_nccl_ranks(2, [](const NcclRank& r) {
    float* x = r.put({static_cast<float>(r.rank)});
    ncclResult_t state = ncclSuccess;
    if (r.rank == 0) {
      EXPECT_EQ(ncclCommGetAsyncError(r.comm, &state), ncclSuccess);
      EXPECT_EQ(state, ncclSuccess);
      ncclRecv(x, 1, ncclFloat32, 1, r.comm, r.stream);
      EXPECT_EQ(ncclCommAbort(r.comm), ncclSuccess);
      EXPECT_EQ(r.take(x, 1), (Floats{0}));
      return;
    }
    while (state == ncclSuccess) ncclCommGetAsyncError(r.comm, &state);
    EXPECT_EQ(state, ncclRemoteError);
  });
}

// Each planted fault changes what arrives, or is found at once.
TEST_F(EmulatedNccl, SabotageChangesWhatArrives) {
  const auto ring = [](const NcclRank& r, float* from, float* to, int count) {
    ncclGroupStart();
    for (int i = 0; i < count; ++i) {
      ncclSend(from + i, 1, ncclFloat32, r.next(), r.comm, r.stream);
      ncclRecv(to + i, 1, ncclFloat32, r.previous(), r.comm, r.stream);
    }
    ncclGroupEnd();
  };
  emulator::plant({"nccl_swapped_pair", ""});
  on_nccl_ranks(2, [&](const NcclRank& r) {
    float *from = r.put({1, 2}), *to = r.make(2);
    ring(r, from, to, 2);
    EXPECT_EQ(r.take(to, 2), (Floats{2, 1}));
  });
  emulator::configure({});
  emulator::plant({"nccl_stale_send", ""});
  on_nccl_ranks(2, [&](const NcclRank& r) {
    float *from = r.put({1}), *to = r.make(1);
    ring(r, from, to, 1);
    EXPECT_EQ(r.take(to, 1), (Floats{1}));
    const float later = 2;
    cudaMemcpy(from, &later, sizeof later, cudaMemcpyHostToDevice);
    ring(r, from, to, 1);
    EXPECT_EQ(r.take(to, 1), (Floats{1}));
  });
  emulator::configure({});
  emulator::plant({"nccl_sum_drops_last_rank", ""});
  on_nccl_ranks(3, [](const NcclRank& r) {
    float* x = r.put({static_cast<float>(r.rank + 1)});
    ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, r.comm, r.stream);
    EXPECT_EQ(r.take(x, 1), (Floats{3}));
  });
  emulator::configure({});
  emulator::plant({"nccl_peer_off_by_one", ""});
  on_nccl_ranks(3, [&](const NcclRank& r) {
    float *from = r.put({1}), *to = r.make(1);
    ring(r, from, to, 1);
    EXPECT_NE(cudaStreamSynchronize(r.stream), cudaSuccess);
  });
  expect_fault(FaultKind::kDeadlock, {"rank"});
}

}  // namespace
}  // namespace sp::test
