// Messages between the threads of a world: order, sizes, splits, counting, many ranks.
//
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "optimized/comm/thread/thread_world.hpp"
#include "tests/distributed/rank_tensors.hpp"

namespace sp {
namespace {

using test::blank;
using test::kPatient;
using test::same_bytes;
using test::written_by;

TEST(ThreadCommunicator, PassesTensorsAroundARing) {
  for (const int ranks : {1, 2, 3, 8}) {
    run_ranks(ranks, kPatient, [](Communicator& comm) {
      CpuMemory memory;
      const int next = (comm.rank() + 1) % comm.size();
      const int previous = (comm.rank() + comm.size() - 1) % comm.size();
      Tensor held = written_by(memory, DType::kBF16, 5, comm.rank());
      for (int step = 0; step < comm.size(); ++step) {
        const Tensor arriving = blank(memory, DType::kBF16, 5);
        comm.exchange({{next, held, {"k", step}}}, {{previous, arriving, {"k", step}}}).wait();
        held = arriving;
      }
      EXPECT_TRUE(same_bytes(held, written_by(memory, DType::kBF16, 5, comm.rank())));
    });
  }
}

TEST(ThreadCommunicator, MatchesMessagesBetweenTwoRanksInPostOrder) {
  run_ranks(2, kPatient, [](Communicator& comm) {
    CpuMemory memory;
    const int peer = 1 - comm.rank();
    constexpr int kMessages = 20;
    std::vector<Tensor> arrived;
    std::vector<Pending> pending;
    for (int n = 0; n < kMessages; ++n) {
      arrived.push_back(blank(memory, DType::kF32, n));
      pending.push_back(
          comm.exchange({{peer, written_by(memory, DType::kF32, n, comm.rank(), n), {"k", n}}},
                        {{peer, arrived.back(), {"k", n}}}));
    }
    while (!pending.empty()) {  // newest first
      pending.back().wait();
      pending.pop_back();
    }
    for (int n = 0; n < kMessages; ++n) {
      EXPECT_TRUE(same_bytes(arrived[static_cast<std::size_t>(n)],
                             written_by(memory, DType::kF32, n, peer, n)));
    }
  });
}

TEST(ThreadCommunicator, SendsToItself) {
  run_ranks(2, kPatient, [](Communicator& comm) {
    CpuMemory memory;
    const Tensor mine = written_by(memory, DType::kF64, 4, comm.rank());
    const Tensor arriving = blank(memory, DType::kF64, 4);
    comm.exchange({{comm.rank(), mine, {"k", 0}}}, {{comm.rank(), arriving, {"k", 0}}}).wait();
    EXPECT_TRUE(same_bytes(mine, arriving));
  });
}

TEST(ThreadCommunicator, KeepsASentTensorAliveUntilItIsCopied) {
  run_ranks(2, kPatient, [](Communicator& comm) {
    CpuMemory memory;
    if (comm.rank() == 0) {
      Pending sent = comm.exchange({{1, written_by(memory, DType::kF32, 100, 0), {"k", 0}}}, {});
      sent.wait();
      EXPECT_EQ(memory.live_bytes(), 0);
    } else {
      const Tensor arriving = blank(memory, DType::kF32, 100);
      comm.exchange({}, {{0, arriving, {"k", 0}}}).wait();
      EXPECT_TRUE(same_bytes(arriving, written_by(memory, DType::kF32, 100, 0)));
    }
  });
}

// Rank 0 waits for its newest operation first; the sum's second stage must not wait for that.
TEST(ThreadCommunicator, MovesAnUnfinishedSumOnWhileWaitingForSomethingElse) {
  run_ranks(2, kPatient, [](Communicator& comm) {
    CpuMemory memory;
    const Tensor sum = memory.allocate(DType::kF32, {10, 1, 1, 1}, "sum");
    for (int i = 0; i < 10; ++i) sum.as<float>()[i] = static_cast<float>(comm.rank() + i);
    Pending reduced = comm.all_reduce(sum, {"sum", 0});
    const Tensor token = written_by(memory, DType::kF32, 1, 1);
    if (comm.rank() == 0) {
      comm.exchange({}, {{1, token, {"token", 0}}}).wait();
      reduced.wait();
    } else {
      reduced.wait();
      comm.exchange({{0, token, {"token", 0}}}, {}).wait();
    }
    for (int i = 0; i < 10; ++i) EXPECT_EQ(sum.as<float>()[i], static_cast<float>(1 + 2 * i));
  });
}

TEST(ThreadCommunicator, SplitsByColourAndOrdersByKey) {
  run_ranks(7, kPatient, [](Communicator& comm) {
    CpuMemory memory;
    const auto half = comm.split(comm.rank() % 2, -comm.rank());  // descending world ranks
    const int expected_size = comm.rank() % 2 == 0 ? 4 : 3;
    ASSERT_EQ(half->size(), expected_size);
    const int highest = comm.rank() % 2 == 0 ? 6 : 5;
    EXPECT_EQ(half->rank(), (highest - comm.rank()) / 2);

    const auto pair = half->split(half->rank() / 2, 0);
    std::vector<Tensor> all;
    for (int r = 0; r < pair->size(); ++r) all.push_back(blank(memory, DType::kF32, 2));
    pair->all_gather(written_by(memory, DType::kF32, 2, comm.rank()), all, {"k", 0}).wait();
    for (int r = 0; r < pair->size(); ++r) {
      const int member = highest - 2 * (half->rank() / 2 * 2 + r);
      EXPECT_TRUE(
          same_bytes(all[static_cast<std::size_t>(r)], written_by(memory, DType::kF32, 2, member)));
    }
  });
}

TEST(ThreadCommunicator, KeepsMessagesOfDifferentCommunicatorsApart) {
  run_ranks(2, kPatient, [](Communicator& comm) {
    CpuMemory memory;
    const auto other = comm.split(0, comm.rank());
    const int peer = 1 - comm.rank();
    const Tensor first = blank(memory, DType::kF32, 3), second = blank(memory, DType::kF32, 3);
    const auto mine = [&](int step) {
      return written_by(memory, DType::kF32, 3, comm.rank(), step);
    };
    // Posted in opposite orders on the two ranks.
    Pending a, b;
    const auto on_world = [&] {
      a = comm.exchange({{peer, mine(1), {"k", 0}}}, {{peer, first, {"k", 0}}});
    };
    const auto on_other = [&] {
      b = other->exchange({{peer, mine(2), {"k", 0}}}, {{peer, second, {"k", 0}}});
    };
    comm.rank() == 0 ? on_world() : on_other();
    comm.rank() == 0 ? on_other() : on_world();
    a.wait();
    b.wait();
    EXPECT_TRUE(same_bytes(first, written_by(memory, DType::kF32, 3, peer, 1)));
    EXPECT_TRUE(same_bytes(second, written_by(memory, DType::kF32, 3, peer, 2)));
  });
}

TEST(ThreadCommunicator, CountsTheTrafficOfSplitCommunicatorsWithTheirParents) {
  run_ranks(4, kPatient, [](Communicator& comm) {
    CpuMemory memory;
    const Tensor mine = written_by(memory, DType::kF32, 2, comm.rank());  // 24 bytes
    const auto pair = comm.split(comm.rank() / 2, 0);
    EXPECT_EQ(comm.traffic(), (Traffic{0, 0}));  // forming groups is free
    const std::vector<Tensor> all{blank(memory, DType::kF32, 2), blank(memory, DType::kF32, 2)};
    pair->all_gather(mine, all, {"k", 0}).wait();
    EXPECT_EQ(comm.traffic(), (Traffic{24, 1}));
    const int next = (comm.rank() + 1) % 4;
    const int previous = (comm.rank() + 3) % 4;
    comm.exchange({{next, mine, {"k", 1}}, {next, mine.rows(0, 0), {"v", 1}}},
                  {{previous, all[0], {"k", 1}}, {previous, all[1].rows(0, 0), {"v", 1}}})
        .wait();
    EXPECT_EQ(comm.traffic(), (Traffic{48, 3}));
    EXPECT_EQ(pair->traffic(), comm.traffic());
  });
}

TEST(ThreadCommunicator, RunsFarMoreRanksThanCores) {
  std::atomic<int> finished{0};
  run_ranks(64, kPatient, [&](Communicator& comm) {
    CpuMemory memory;
    const Tensor mine = written_by(memory, DType::kF32, 7, comm.rank());
    std::vector<Tensor> all;
    for (int r = 0; r < comm.size(); ++r) all.push_back(blank(memory, DType::kF32, 7));
    for (int step = 0; step < 5; ++step) comm.all_gather(mine, all, {"k", step}).wait();
    for (int r = 0; r < comm.size(); ++r) {
      EXPECT_TRUE(
          same_bytes(all[static_cast<std::size_t>(r)], written_by(memory, DType::kF32, 7, r)));
    }
    ++finished;
  });
  EXPECT_EQ(finished, 64);
}

}  // namespace
}  // namespace sp
