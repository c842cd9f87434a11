// The collectives for any number of ranks, uneven and empty parts, every type that may travel.
//
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "optimized/comm/thread/thread_world.hpp"
#include "optimized/sharding/layout.hpp"
#include "tests/distributed/rank_tensors.hpp"

namespace sp {
namespace {

using test::blank;
using test::kPatient;
using test::same_bytes;
using test::written_by;

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

std::int64_t uneven_rows(int rank) { return (rank * 5) % 4; }  // 0, 1, 2, 3, 0, ...

class Collectives : public testing::TestWithParam<int> {
 protected:
  void run(const std::function<void(Communicator&, Memory&)>& body) {
    run_ranks(GetParam(), kPatient, [&](Communicator& comm) {
      CpuMemory memory(Fence::kPoisonAndCanary);
      body(comm, memory);
      EXPECT_EQ(memory.live_bytes(), 0);
      memory.check_fences();
    });
  }
};

INSTANTIATE_TEST_SUITE_P(Ranks, Collectives, testing::Values(1, 2, 3, 4, 5, 6, 7, 8, 9, 16),
                         testing::PrintToStringParamName());

TEST_P(Collectives, AllGatherBringsEveryRanksTensorWhateverItsLength) {
  for (const DType dtype : {DType::kF32, DType::kF64, DType::kBF16}) {
    run([dtype](Communicator& comm, Memory& memory) {
      std::vector<Tensor> all;
      for (int r = 0; r < comm.size(); ++r) all.push_back(blank(memory, dtype, uneven_rows(r)));
      const Tensor mine = written_by(memory, dtype, uneven_rows(comm.rank()), comm.rank());
      comm.all_gather(mine, all, {"k", 0}).wait();
      for (int r = 0; r < comm.size(); ++r) {
        EXPECT_TRUE(same_bytes(all[index(r)], written_by(memory, dtype, uneven_rows(r), r)));
      }
      EXPECT_EQ(comm.traffic(), all_gather_traffic(mine.bytes(), comm.size()));
    });
  }
}

TEST_P(Collectives, AllGatherMayGatherInPlace) {
  run([](Communicator& comm, Memory& memory) {
    const Tensor whole = blank(memory, DType::kF32, 2 * comm.size());
    std::vector<Tensor> all;
    for (int r = 0; r < comm.size(); ++r) all.push_back(whole.rows(2 * r, 2 * r + 2));
    const Tensor contents = written_by(memory, DType::kF32, 2, comm.rank());
    memory.upload(all[index(comm.rank())], contents.data());
    comm.all_gather(all[index(comm.rank())], all, {"k", 0}).wait();
    for (int r = 0; r < comm.size(); ++r) {
      EXPECT_TRUE(same_bytes(all[index(r)], written_by(memory, DType::kF32, 2, r)));
    }
  });
}

TEST_P(Collectives, AllToAllTransposesUnevenBlocks) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    run([dtype](Communicator& comm, Memory& memory) {
      const auto rows = [](int from, int to) {
        return static_cast<std::int64_t>(from + 2 * to) % 4;
      };
      std::vector<Tensor> sends, receives;
      for (int r = 0; r < comm.size(); ++r) {
        sends.push_back(written_by(memory, dtype, rows(comm.rank(), r), comm.rank(), r));
        receives.push_back(blank(memory, dtype, rows(r, comm.rank())));
      }
      comm.all_to_all(sends, receives, {"q", 0}).wait();
      for (int r = 0; r < comm.size(); ++r) {
        EXPECT_TRUE(same_bytes(receives[index(r)],
                               written_by(memory, dtype, rows(r, comm.rank()), r, comm.rank())));
      }
    });
  }
}

TEST_P(Collectives, BroadcastReachesEveryRankFromEveryRoot) {
  run([](Communicator& comm, Memory& memory) {
    for (int root = 0; root < comm.size(); ++root) {
      const Tensor tensor = comm.rank() == root ? written_by(memory, DType::kF16, 9, root)
                                                : blank(memory, DType::kF16, 9);
      comm.broadcast(tensor, root, {"k", root}).wait();
      EXPECT_TRUE(same_bytes(tensor, written_by(memory, DType::kF16, 9, root)));
    }
    EXPECT_EQ(comm.traffic(), all_gather_traffic(54, comm.size()));  // once as the root
  });
}

template <class T>
void expect_reduce_scatter_in_rank_order(Communicator& comm, Memory& memory) {
  const DType dtype = sizeof(T) == 8 ? DType::kF64 : DType::kF32;
  // Longer than one block of the sum, and one rank with nothing.
  const auto rows = [](int rank) { return rank == 1 ? std::int64_t{0} : 300 + rank; };
  std::vector<Tensor> parts;
  for (int r = 0; r < comm.size(); ++r) {
    parts.push_back(blank(memory, dtype, rows(r)));
    for (std::int64_t i = 0; i < parts.back().elements(); ++i) {
      parts.back().as<T>()[i] = test::summand<T>(comm.rank(), i + r);
    }
  }
  const Tensor sum = blank(memory, dtype, rows(comm.rank()));
  comm.reduce_scatter(parts, sum, {"d_k", 0}).wait();
  for (std::int64_t i = 0; i < sum.elements(); ++i) {
    ASSERT_EQ(sum.as<T>()[i], test::sum_over_ranks<T>(comm.size(), i + comm.rank()));
  }
}

TEST_P(Collectives, ReduceScatterSumsInRankOrderBitForBit) {
  run(expect_reduce_scatter_in_rank_order<float>);
  run(expect_reduce_scatter_in_rank_order<double>);
}

template <class T>
void expect_all_reduce_in_rank_order(Communicator& comm, Memory& memory) {
  const DType dtype = sizeof(T) == 8 ? DType::kF64 : DType::kF32;
  std::vector<Tensor> tensors;
  std::vector<Pending> pending;
  for (const std::int64_t count : {0, 1, 2, 5, 17, 4000}) {  // fewer and more than ranks
    tensors.push_back(memory.allocate(dtype, {count, 1, 1, 1}, "sum"));
    for (std::int64_t i = 0; i < count; ++i) {
      tensors.back().as<T>()[i] = test::summand<T>(comm.rank(), i);
    }
    pending.push_back(comm.all_reduce(tensors.back(), {"sum", static_cast<int>(count)}));
  }
  while (!pending.empty()) {
    pending.back().wait();
    pending.pop_back();
  }
  for (const Tensor& tensor : tensors) {
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      ASSERT_EQ(tensor.as<T>()[i], test::sum_over_ranks<T>(comm.size(), i));
    }
  }
}

TEST_P(Collectives, AllReduceLeavesTheSameBitsOnEveryRank) {
  run(expect_all_reduce_in_rank_order<float>);
  run(expect_all_reduce_in_rank_order<double>);
}

TEST_P(Collectives, CountSumsAsTheirDirectForm) {
  run([](Communicator& comm, Memory& memory) {
    const Tensor tensor = memory.allocate(DType::kF32, {11, 1, 1, 1}, "sum");
    memory.upload(tensor, std::vector<float>(11, 1.0f).data());
    comm.all_reduce(tensor, {"sum", 0}).wait();
    EXPECT_EQ(comm.traffic(), all_reduce_traffic(11, 4, comm.rank(), comm.size()));
    EXPECT_TRUE(comm.size() > 1 || comm.traffic() == Traffic{});
  });
}

TEST(OwnParts, OfAnotherSizeThanTheirRoomAreNamed) {
  const auto refused = [](const char* said, const auto& post) {
    run_ranks(2, kPatient, [&](Communicator& comm) {
      CpuMemory memory;
      const auto rows = [&](std::int64_t count) {
        return memory.allocate(DType::kF32, {count, 1, 1, 1}, "x");
      };
      try {
        post(comm, rows);
        ADD_FAILURE() << "nobody noticed";
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(said), std::string::npos) << error.what();
      }
    });
  };
  refused("all_gather of k step 3: rank", [](Communicator& comm, const auto& rows) {
    std::vector<Tensor> all{rows(2), rows(2)};
    comm.all_gather(rows(3), all, {"k", 3}).wait();
  });
  refused("reduce_scatter of d_k step 1: rank", [](Communicator& comm, const auto& rows) {
    comm.reduce_scatter({rows(2), rows(2)}, rows(1), {"d_k", 1}).wait();
  });
  refused("gives itself 8 bytes and has room for 4", [](Communicator& comm, const auto& rows) {
    comm.all_to_all({rows(2), rows(2)}, {rows(1), rows(1)}, {"v", 0}).wait();
  });
}

TEST(Sums, AreRefusedForStorageTypes) {
  run_ranks(1, kPatient, [](Communicator& comm) {
    CpuMemory memory;
    const Tensor tensor = written_by(memory, DType::kBF16, 2, 0);
    EXPECT_TRUE(test::says(test::failure_of([&] { comm.all_reduce(tensor, {"sum", 0}).wait(); }),
                           "f32 or f64"));
  });
}

}  // namespace
}  // namespace sp
