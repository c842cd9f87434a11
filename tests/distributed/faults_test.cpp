// Faults among threads: each ends in one clear error that names the culprit, within the limit.
//
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "optimized/comm/thread/thread_world.hpp"
#include "tests/distributed/rank_tensors.hpp"

namespace sp {
namespace {

using test::blank;
using test::kHasty;
using test::kPatient;
using test::says;
using test::written_by;

std::string fault(int ranks, std::chrono::milliseconds time_limit,
                  const std::function<void(Communicator&, Memory&)>& body) {
  return test::failure_of([&] {
    run_ranks(ranks, time_limit, [&](Communicator& comm) {
      CpuMemory memory;
      body(comm, memory);
    });
  });
}

// A ring in which `bend` may change what one rank sends.
struct RingMessage {
  int to;
  std::int64_t rows;
  Label label;
};
std::string ring_fault(std::chrono::milliseconds time_limit,
                       const std::function<void(int rank, RingMessage&)>& bend) {
  return fault(3, time_limit, [&](Communicator& comm, Memory& memory) {
    for (int step = 0; step < 3; ++step) {
      RingMessage message{(comm.rank() + 1) % 3, 4, {"k", step}};
      bend(comm.rank(), message);
      const Tensor arriving = blank(memory, DType::kF32, 4);
      comm.exchange({{message.to, written_by(memory, DType::kF32, message.rows, 0), message.label}},
                    {{(comm.rank() + 2) % 3, arriving, {"k", step}}})
          .wait();
    }
  });
}

TEST(Faults, AWrongSizeNamesBothSidesAndBothSizes) {
  const std::string text = ring_fault(kPatient, [](int rank, RingMessage& message) {
    if (rank == 1 && message.label.step == 1) message.rows = 3;
  });
  EXPECT_TRUE(says(text, "rank 1 sent k step 1 (36 bytes")) << text;
  EXPECT_TRUE(says(text, "rank 2 expected k step 1 (48 bytes")) << text;
}

TEST(Faults, AWrongLabelNamesBothLabels) {
  const std::string text = ring_fault(kPatient, [](int rank, RingMessage& message) {
    if (rank == 0 && message.label.step == 2) message.label = {"v", 7};
  });
  EXPECT_TRUE(says(text, "rank 0 sent v step 7")) << text;
  EXPECT_TRUE(says(text, "rank 1 expected k step 2")) << text;
}

TEST(Faults, AWrongTypeOfTheSameSizeIsFound) {
  const std::string text = fault(2, kPatient, [](Communicator& comm, Memory& memory) {
    const DType dtype = comm.rank() == 0 ? DType::kBF16 : DType::kF16;
    const Tensor tensor = written_by(memory, dtype, 2, 0);
    if (comm.rank() == 0) {
      comm.exchange({{1, tensor, {"k", 0}}}, {}).wait();
    } else {
      comm.exchange({}, {{0, tensor, {"k", 0}}}).wait();
    }
  });
  EXPECT_TRUE(says(text, "12 bytes of bf16") && says(text, "12 bytes of f16")) << text;
}

TEST(Faults, AMessageToTheWrongPeerNamesWhoLacksIt) {
  const std::string text = ring_fault(kHasty, [](int rank, RingMessage& message) {
    if (rank == 1 && message.label.step == 0) message.to = 0;
  });
  EXPECT_TRUE(says(text, "rank 2 waits for k step 0 (48 bytes) from rank 1")) << text;
}

TEST(Faults, ADroppedMessageIsReportedWithWhatEveryRankWaitsFor) {
  const std::string text = fault(3, kHasty, [](Communicator& comm, Memory& memory) {
    const Tensor mine = written_by(memory, DType::kF32, 4, 0),
                 other = blank(memory, DType::kF32, 4);
    std::vector<Message> sends{{(comm.rank() + 1) % 3, mine, {"k", 3}}};
    if (comm.rank() == 2) sends.clear();
    comm.exchange(sends, {{(comm.rank() + 2) % 3, other, {"k", 3}}}).wait();
    comm.exchange({}, {{(comm.rank() + 1) % 3, other, {"end", 0}}}).wait();
  });
  EXPECT_TRUE(says(text, "the time limit of 0.3 s has passed")) << text;
  EXPECT_TRUE(says(text, "rank 0 waits for k step 3 (48 bytes) from rank 2")) << text;
  EXPECT_TRUE(says(text, "rank 1 waits for end step 0 (48 bytes) from rank 2")) << text;
  EXPECT_TRUE(says(text, "rank 2 waits for end step 0 (48 bytes) from rank 0")) << text;
}

TEST(Faults, SwappedOrderIsFound) {
  const std::string text = fault(2, kPatient, [](Communicator& comm, Memory& memory) {
    const Tensor k = written_by(memory, DType::kF32, 4, 0),
                 v = written_by(memory, DType::kF32, 4, 1);
    if (comm.rank() == 0) {
      comm.exchange({{1, v, {"v", 0}}, {1, k, {"k", 0}}}, {}).wait();
    } else {
      comm.exchange({}, {{0, k, {"k", 0}}, {0, v, {"v", 0}}}).wait();
    }
  });
  EXPECT_TRUE(says(text, "rank 0 sent v step 0") && says(text, "rank 1 expected k step 0")) << text;
}

TEST(Faults, ADuplicatedMessageIsFoundWhereItIsTakenForTheNext) {
  const std::string text = fault(2, kPatient, [](Communicator& comm, Memory& memory) {
    const Tensor k = written_by(memory, DType::kF32, 4, 0);
    for (int step = 0; step < 2; ++step) {
      if (comm.rank() == 1) comm.exchange({}, {{0, k, {"k", step}}}).wait();
      if (comm.rank() == 0 && step == 0) {
        comm.exchange({{1, k, {"k", 0}}, {1, k, {"k", 0}}}, {}).wait();
      }
    }
  });
  EXPECT_TRUE(says(text, "rank 0 sent k step 0") && says(text, "rank 1 expected k step 1")) << text;
}

TEST(Faults, DifferentCollectivesAreFound) {
  const std::string text = fault(2, kPatient, [](Communicator& comm, Memory& memory) {
    const std::vector<Tensor> parts{written_by(memory, DType::kF32, 2, 0),
                                    written_by(memory, DType::kF32, 2, 1)};
    const std::vector<Tensor> into{blank(memory, DType::kF32, 2), blank(memory, DType::kF32, 2)};
    (comm.rank() == 0 ? comm.all_gather(parts[0], into, {"k", 0})
                      : comm.all_to_all(parts, into, {"k", 0}))
        .wait();
  });
  EXPECT_TRUE(says(text, "all_gather") && says(text, "all_to_all")) << text;
}

TEST(Faults, ARankThatThrowsEndsTheOthersWithItsReason) {
  std::vector<std::string> heard(4);
  const auto start = std::chrono::steady_clock::now();
  const std::string text = fault(4, kPatient, [&](Communicator& comm, Memory& memory) {
    if (comm.rank() == 2) throw Error(ErrorKind::kUsage, "the disk is full");
    const Tensor tensor = memory.allocate(DType::kF32, {8, 1, 1, 1}, "sum");
    memory.upload(tensor, std::vector<float>(8, 1.0f).data());
    std::string& mine = heard[static_cast<std::size_t>(comm.rank())];
    mine = test::failure_of([&] { comm.all_reduce(tensor, {"sum", 0}).wait(); });
  });
  EXPECT_EQ(text, "rank 2: the disk is full");
  for (const int rank : {0, 1, 3}) {
    EXPECT_EQ(heard[static_cast<std::size_t>(rank)], "rank 2 failed: the disk is full");
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, kPatient / 2);
}

TEST(Faults, ForeignExceptionsReachTheCaller) {
  struct Foreign {};
  EXPECT_THROW(run_ranks(2, kPatient,
                         [](Communicator& comm) {
                           if (comm.rank() == 1) throw Foreign{};
                           comm.split(0, 0);
                         }),
               Foreign);
}

TEST(Faults, ARankThatStallsIsNamed) {
  const std::string text = fault(3, kHasty, [](Communicator& comm, Memory& memory) {
    if (comm.rank() == 1) std::this_thread::sleep_for(4 * kHasty);
    const Tensor k = written_by(memory, DType::kF32, 4, 0), other = blank(memory, DType::kF32, 4);
    comm.exchange({{(comm.rank() + 1) % 3, k, {"k", 0}}},
                  {{(comm.rank() + 2) % 3, other, {"k", 0}}})
        .wait();
  });
  EXPECT_TRUE(says(text, "no sign of rank 1\n")) << text;
  EXPECT_TRUE(says(text, "rank 2 waits for k step 0 (48 bytes) from rank 1")) << text;
}

TEST(Faults, ARankThatReturnsEarlyIsNamedAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  const std::string text = fault(3, kPatient, [](Communicator& comm, Memory& memory) {
    if (comm.rank() == 2) return;
    const Tensor k = written_by(memory, DType::kF32, 4, 0), other = blank(memory, DType::kF32, 4);
    comm.exchange({{(comm.rank() + 1) % 3, k, {"k", 5}}},
                  {{(comm.rank() + 2) % 3, other, {"k", 5}}})
        .wait();
  });
  EXPECT_TRUE(says(text, "rank 2 has finished, but rank")) << text;
  EXPECT_LT(std::chrono::steady_clock::now() - start, kPatient / 2);
}

TEST(Faults, ARankThatDoesNotSplitIsNamed) {
  const std::string text = fault(3, kHasty, [](Communicator& comm, Memory&) {
    if (comm.rank() == 1) std::this_thread::sleep_for(4 * kHasty);
    comm.split(0, comm.rank());
  });
  EXPECT_TRUE(says(text, "rank 0 waits for split step 0 (8 bytes) from rank 1")) << text;
}

TEST(Faults, OperationsThatDieUnfinishedWithdrawTheirMessages) {
  const std::string text = fault(2, kPatient, [](Communicator& comm, Memory& memory) {
    if (comm.rank() == 0) {
      const Tensor k = written_by(memory, DType::kF32, 4, 0);
      const Pending abandoned = comm.exchange({{1, k, {"k", 0}}}, {{1, k, {"v", 0}}});
      throw Error(ErrorKind::kUsage, "changed my mind");
    }
    const Tensor sum = memory.allocate(DType::kF32, {3, 1, 1, 1}, "sum");
    const Pending abandoned = comm.all_reduce(sum, {"sum", 0});
    throw Error(ErrorKind::kUsage, "changed my mind");
  });
  EXPECT_TRUE(says(text, "changed my mind")) << text;
}

}  // namespace
}  // namespace sp
