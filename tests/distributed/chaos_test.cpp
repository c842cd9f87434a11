// Chaos changes when and in which order messages start, never what a correct program computes, and
// it does expose programs that are wrong.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/chaos.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "optimized/comm/checked.hpp"
#include "optimized/comm/thread/thread_world.hpp"
#include "tests/distributed/rank_tensors.hpp"

namespace sp {
namespace {

using test::blank;
using test::kPatient;
using test::same_bytes;
using test::written_by;

constexpr int kSeeds = 20;

// Everything at once: both directions of a ring, a sum, gathers on a split, waits out of order.
void run_a_busy_program(Communicator& comm) {
  CpuMemory memory(Fence::kPoisonAndCanary);
  const int P = comm.size();
  const int next = (comm.rank() + 1) % P, previous = (comm.rank() + P - 1) % P;
  const auto half = comm.split(comm.rank() % 2, comm.rank());
  for (int step = 0; step < 4; ++step) {
    const auto mine = [&](int what) {
      return written_by(memory, DType::kF32, what, comm.rank(), 10 * step + what);
    };
    const Tensor k = blank(memory, DType::kF32, 1), v = blank(memory, DType::kF32, 2),
                 dk = blank(memory, DType::kF32, 3);
    const Tensor sum = memory.allocate(DType::kF64, {13, 1, 1, 1}, "sum");
    for (int i = 0; i < 13; ++i) sum.as<double>()[i] = test::summand<double>(comm.rank(), i);
    std::vector<Tensor> all;
    for (int r = 0; r < half->size(); ++r) all.push_back(blank(memory, DType::kF32, 4));

    Pending forwards = comm.exchange({{next, mine(1), {"k", step}}, {next, mine(2), {"v", step}}},
                                     {{previous, k, {"k", step}}, {previous, v, {"v", step}}});
    Pending reduced = comm.all_reduce(sum, {"sum", step});
    Pending backwards =
        comm.exchange({{previous, mine(3), {"dk", step}}}, {{next, dk, {"dk", step}}});
    Pending gathered = half->all_gather(mine(4), all, {"out", step});
    backwards.wait();
    gathered.wait();
    forwards.wait();
    reduced.wait();

    const auto expect = [&](const Tensor& tensor, int author, int what) {
      EXPECT_TRUE(
          same_bytes(tensor, written_by(memory, DType::kF32, what, author, 10 * step + what)));
    };
    expect(k, previous, 1);
    expect(v, previous, 2);
    expect(dk, next, 3);
    for (int r = 0; r < half->size(); ++r) {
      expect(all[static_cast<std::size_t>(r)], 2 * r + comm.rank() % 2, 4);
    }
    for (int i = 0; i < 13; ++i) {
      ASSERT_EQ(sum.as<double>()[i], test::sum_over_ranks<double>(P, i));
    }
  }
}

TEST(Chaos, LeavesTheResultsOfACorrectProgramAlone) {
  for (const int ranks : {1, 2, 3, 6}) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
      run_ranks(ranks, kPatient, [seed](Communicator& inner) {
        ChaosCommunicator comm(inner, seed);
        run_a_busy_program(comm);
      });
    }
  }
}

TEST(Chaos, WorksUnderTheChecksAndCountsTrafficOnce) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    run_ranks(3, kPatient, [seed](Communicator& inner) {
      CheckedCommunicator comm(std::make_unique<ChaosCommunicator>(inner, seed));
      run_a_busy_program(comm);
      comm.finish();
      EXPECT_EQ(comm.traffic(), inner.traffic());
      EXPECT_EQ(comm.traffic().messages_sent, 4 * (2 + 4 + 1 + (comm.rank() % 2 == 0 ? 1 : 0)));
    });
  }
}

// The order in which rank 0's messages start, seen by a communicator below the chaos.
class OrderRecorder final : public CommunicatorDecorator {
 public:
  OrderRecorder(Communicator& inner, std::string& order)
      : CommunicatorDecorator(inner), order_(order) {}

 protected:
  std::unique_ptr<Operation> start(Request request) override {
    for (const Message& send : request.sends) order_ += send.label.tensor;
    return start_inner(std::move(request));
  }

 private:
  std::string& order_;
};

std::string order_of_starts(std::uint64_t seed) {
  std::string order;
  run_ranks(4, kPatient, [&](Communicator& inner) {
    CpuMemory memory;
    std::string mine;
    OrderRecorder recorder(inner, mine);
    ChaosCommunicator comm(recorder, seed);
    const Tensor tensor = written_by(memory, DType::kF32, 1, 0);
    if (comm.rank() == 0) {
      Pending first =
          comm.exchange({{1, tensor, {"a", 0}}, {2, tensor, {"b", 0}}, {3, tensor, {"c", 0}}}, {});
      Pending second =
          comm.exchange({{1, tensor, {"A", 0}}, {2, tensor, {"B", 0}}, {3, tensor, {"C", 0}}}, {});
      first.wait();
      second.wait();
      order = mine;
    } else {
      const char* first = comm.rank() == 1 ? "a" : comm.rank() == 2 ? "b" : "c";
      const char* second = comm.rank() == 1 ? "A" : comm.rank() == 2 ? "B" : "C";
      comm.exchange({}, {{0, tensor, {first, 0}}}).wait();
      comm.exchange({}, {{0, tensor, {second, 0}}}).wait();
    }
  });
  return order;
}

TEST(Chaos, ShufflesPeersButNeverTheMessagesToOnePeer) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    const std::string order = order_of_starts(seed);
    seen.insert(order);
    for (const char* pair : {"aA", "bB", "cC"}) {
      EXPECT_LT(order.find(pair[0]), order.find(pair[1])) << order;
    }
    EXPECT_EQ(order, order_of_starts(seed)) << "the order depends on more than the seed";
  }
  EXPECT_GT(seen.size(), 5u);
}

// On one rank, so that the misuse is no data race.
TEST(Chaos, ExposesAProgramThatWritesToWhatItSends) {
  int exposed = 0;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    run_ranks(1, kPatient, [&](Communicator& inner) {
      ChaosCommunicator comm(inner, seed);
      CpuMemory memory;
      const Tensor tensor = written_by(memory, DType::kF32, 4, 0);
      const Tensor arrived = blank(memory, DType::kF32, 4);
      Pending pending = comm.exchange({{0, tensor, {"k", 0}}}, {{0, arrived, {"k", 0}}});
      for (int i = 0; i < 12; ++i) tensor.as<float>()[i] = 0;
      pending.wait();
      if (!same_bytes(arrived, written_by(memory, DType::kF32, 4, 0))) ++exposed;
    });
  }
  EXPECT_GT(exposed, kSeeds / 2);
}

TEST(Chaos, LetsErrorsThrough) {
  const std::string text = test::failure_of([] {
    run_ranks(2, kPatient, [](Communicator& inner) {
      ChaosCommunicator comm(inner, 7);
      CpuMemory memory;
      const Tensor tensor = written_by(memory, DType::kF32, 4, 0);
      if (comm.rank() == 0) {
        comm.exchange({{1, tensor, {"k", 0}}}, {}).wait();
      } else {
        comm.exchange({}, {{0, tensor, {"v", 0}}}).wait();
      }
    });
  });
  EXPECT_TRUE(test::says(text, "messages do not match")) << text;
}

}  // namespace
}  // namespace sp
