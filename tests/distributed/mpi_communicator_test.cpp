// The communicator between real processes: run under mpirun with any number of ranks.
//
// Every rank runs every test; a failure on any rank fails the program on all.
//
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>

#include "optimized/comm/chaos.hpp"
#include "optimized/comm/checked.hpp"
#include "optimized/comm/mpi/mpi_session.hpp"
#include "tests/distributed/rank_tensors.hpp"

namespace sp {
namespace {

using test::blank;
using test::same_bytes;
using test::written_by;

MpiSession* session = nullptr;  // of main

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

std::unique_ptr<Communicator> world(std::int64_t piece_bytes = std::int64_t{1} << 30) {
  return session->communicator(std::make_shared<Traffic>(), {test::kPatient, piece_bytes});
}

TEST(MpiCommunicator, PassesTensorsAroundARing) {
  CpuMemory memory;
  const auto comm = world();
  const int P = comm->size();
  Tensor held = written_by(memory, DType::kBF16, 1000, comm->rank());
  for (int step = 0; step < P; ++step) {
    const Tensor arriving = blank(memory, DType::kBF16, 1000);
    comm->exchange({{(comm->rank() + 1) % P, held, {"k", step}}},
                   {{(comm->rank() + P - 1) % P, arriving, {"k", step}}})
        .wait();
    held = arriving;
  }
  EXPECT_TRUE(same_bytes(held, written_by(memory, DType::kBF16, 1000, comm->rank())));
  EXPECT_EQ(comm->traffic(), (Traffic{P * 6000, P}));
}

TEST(MpiCommunicator, SendsLongMessagesInPieces) {
  CpuMemory memory;
  for (const std::int64_t piece : {1, 7, 64, 1000}) {
    const auto comm = world(piece);
    const int next = (comm->rank() + 1) % comm->size();
    const int previous = (comm->rank() + comm->size() - 1) % comm->size();
    for (const std::int64_t rows : {0, 1, 10, 83}) {
      const Tensor arriving = blank(memory, DType::kF32, rows);
      comm->exchange({{next, written_by(memory, DType::kF32, rows, comm->rank()), {"k", 0}}},
                     {{previous, arriving, {"k", 0}}})
          .wait();
      EXPECT_TRUE(same_bytes(arriving, written_by(memory, DType::kF32, rows, previous)));
    }
  }
}

// Large enough for the rendezvous protocol; rank 0 waits for its newest operation first, so that
// everything else must move on meanwhile.
TEST(MpiCommunicator, MovesEverythingOnWhileWaitingForOneThing) {
  CpuMemory memory;
  const auto comm = world();
  const int P = comm->size();
  constexpr std::int64_t kRows = 100'000;
  constexpr int kSums = 50'000;
  const Tensor sum = memory.allocate(DType::kF64, {kSums, 1, 1, 1}, "sum");
  for (int i = 0; i < kSums; ++i) sum.as<double>()[i] = test::summand<double>(comm->rank(), i);
  Pending reduced = comm->all_reduce(sum, {"sum", 0});
  const Tensor arriving = blank(memory, DType::kF32, kRows);
  const int next = (comm->rank() + 1) % P, previous = (comm->rank() + P - 1) % P;
  Pending large =
      comm->exchange({{next, written_by(memory, DType::kF32, kRows, comm->rank()), {"k", 0}}},
                     {{previous, arriving, {"k", 0}}});
  const Tensor token = blank(memory, DType::kF32, 1);
  if (comm->rank() == 0) {
    std::vector<Message> tokens;
    std::vector<Tensor> buffers;
    for (int peer = 1; peer < P; ++peer)
      tokens.push_back({peer, blank(memory, DType::kF32, 1), {"token", 0}});
    comm->exchange({}, tokens).wait();
    large.wait();
    reduced.wait();
  } else {
    reduced.wait();
    large.wait();
    comm->exchange({{0, token, {"token", 0}}}, {}).wait();
  }
  EXPECT_TRUE(same_bytes(arriving, written_by(memory, DType::kF32, kRows, previous)));
  for (int i = 0; i < kSums; ++i) {
    ASSERT_EQ(sum.as<double>()[i], test::sum_over_ranks<double>(P, i));
  }
}

TEST(MpiCommunicator, SumsInRankOrderBitForBit) {
  CpuMemory memory;
  const auto comm = world(100);
  std::vector<Tensor> parts;
  for (int r = 0; r < comm->size(); ++r) {
    parts.push_back(memory.allocate(DType::kF32, {600 + r, 1, 1, 1}, "part"));
    for (int i = 0; i < 600 + r; ++i) {
      parts.back().as<float>()[i] = test::summand<float>(comm->rank(), i + r);
    }
  }
  const Tensor sum = memory.allocate(DType::kF32, {600 + comm->rank(), 1, 1, 1}, "sum");
  comm->reduce_scatter(parts, sum, {"d_k", 0}).wait();
  for (int i = 0; i < 600 + comm->rank(); ++i) {
    ASSERT_EQ(sum.as<float>()[i], test::sum_over_ranks<float>(comm->size(), i + comm->rank()));
  }
}

TEST(MpiCommunicator, GathersScattersAndBroadcastsUnevenParts) {
  CpuMemory memory;
  const auto comm = world();
  const int me = comm->rank(), P = comm->size();
  const auto rows = [](int from, int to) { return static_cast<std::int64_t>(3 * from + to) % 5; };
  std::vector<Tensor> all, sends, receives;
  for (int r = 0; r < P; ++r) {
    all.push_back(blank(memory, DType::kF16, rows(r, 0)));
    sends.push_back(written_by(memory, DType::kF16, rows(me, r), me, r));
    receives.push_back(blank(memory, DType::kF16, rows(r, me)));
  }
  Pending gathered =
      comm->all_gather(written_by(memory, DType::kF16, rows(me, 0), me), all, {"k", 0});
  Pending transposed = comm->all_to_all(sends, receives, {"q", 0});
  const Tensor tensor =
      me == P - 1 ? written_by(memory, DType::kF64, 9, 77) : blank(memory, DType::kF64, 9);
  comm->broadcast(tensor, P - 1, {"v", 0}).wait();
  transposed.wait();
  gathered.wait();
  EXPECT_TRUE(same_bytes(tensor, written_by(memory, DType::kF64, 9, 77)));
  for (int r = 0; r < P; ++r) {
    EXPECT_TRUE(same_bytes(all[index(r)], written_by(memory, DType::kF16, rows(r, 0), r)));
    EXPECT_TRUE(
        same_bytes(receives[index(r)], written_by(memory, DType::kF16, rows(r, me), r, me)));
  }
}

TEST(MpiCommunicator, SplitsAgainAndAgain) {
  CpuMemory memory;
  const auto comm = world();
  for (int round = 0; round < 20; ++round) {
    const auto half = comm->split(-1 - comm->rank() % 2, -comm->rank());
    const auto alone = half->split(half->rank(), 0);
    EXPECT_EQ(alone->size(), 1);
    std::vector<Tensor> all;
    for (int r = 0; r < half->size(); ++r) all.push_back(blank(memory, DType::kF32, 2));
    half->all_gather(written_by(memory, DType::kF32, 2, comm->rank()), all, {"k", 0}).wait();
    const int highest = comm->rank() + 2 * half->rank();
    for (int r = 0; r < half->size(); ++r) {
      EXPECT_TRUE(same_bytes(all[index(r)], written_by(memory, DType::kF32, 2, highest - 2 * r)));
    }
  }
}

TEST(MpiCommunicator, StandsCheckedChaos) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    CpuMemory memory(Fence::kPoisonAndCanary);
    CheckedCommunicator comm(std::make_unique<ChaosCommunicator>(world(64), seed));
    const int P = comm.size();
    const int next = (comm.rank() + 1) % P, previous = (comm.rank() + P - 1) % P;
    for (int step = 0; step < 5; ++step) {
      const Tensor k = blank(memory, DType::kF32, 40), v = blank(memory, DType::kF32, 40);
      Pending forwards = comm.exchange(
          {{next, written_by(memory, DType::kF32, 40, comm.rank(), step), {"k", step}}},
          {{previous, k, {"k", step}}});
      Pending backwards = comm.exchange(
          {{previous, written_by(memory, DType::kF32, 40, comm.rank(), step), {"v", step}}},
          {{next, v, {"v", step}}});
      backwards.wait();
      forwards.wait();
      EXPECT_TRUE(same_bytes(k, written_by(memory, DType::kF32, 40, previous, step)));
      EXPECT_TRUE(same_bytes(v, written_by(memory, DType::kF32, 40, next, step)));
    }
    comm.finish();
  }
}

// Ranks other than 0 say only what went wrong.
class FailuresOnly final : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    fmt::print(stderr, "rank {}: {}:{}: {}\n", session->rank(), result.file_name(),
               result.line_number(), result.summary());
  }
};

}  // namespace
}  // namespace sp

int main(int argc, char** argv) {
  sp::MpiSession session(&argc, &argv);
  sp::session = &session;
  testing::InitGoogleTest(&argc, argv);
  if (session.rank() != 0) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new sp::FailuresOnly);
  }
  int failed = RUN_ALL_TESTS();
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) failed = 1;
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  return failed;
}
