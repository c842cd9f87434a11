// Each misuse of a buffer in flight is found and named, and correct programs pass.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/checked.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "optimized/comm/overlap.hpp"
#include "optimized/comm/thread/thread_world.hpp"
#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "tests/distributed/rank_tensors.hpp"

namespace sp {
namespace {

using test::blank;
using test::kPatient;
using test::same_bytes;
using test::says;
using test::written_by;

// One rank that sends to itself: misuse needs no second one.
struct Bench {
  CheckedCommunicator& comm;
  Kernels& kernels;
  Memory& memory;
  Tensor sent, received;  // [8, 1, 1, 3] f32, named "written" and "blank"

  Pending post() { return comm.exchange({{0, sent, {"k", 3}}}, {{0, received, {"k", 3}}}); }
};

std::string misuse(const std::function<void(Bench&)>& body) {
  return test::failure_of([&] {
    run_ranks(1, kPatient, [&](Communicator& inner) {
      CpuMemory memory;
      CpuKernels kernels;
      CheckedCommunicator comm(inner);
      kernels.observe(&comm);
      Bench bench{comm, kernels, memory, written_by(memory, DType::kF32, 8, 0),
                  blank(memory, DType::kF32, 8)};
      body(bench);
      comm.finish();
    });
  });
}

TEST(Checked, PassesACorrectExchange) {
  EXPECT_EQ(misuse([](Bench& bench) {
              Pending pending = bench.post();
              const Tensor copy = blank(bench.memory, DType::kF32, 8);
              bench.kernels.copy(copy, bench.sent);  // reading what is sent is allowed
              pending.wait();
              EXPECT_TRUE(same_bytes(bench.received, bench.sent));
              bench.kernels.fill(bench.sent, 1);
              bench.kernels.fill(bench.received, 2);
              EXPECT_EQ(bench.comm.traffic(), (Traffic{96, 1}));  // once
            }),
            "");
}

TEST(Checked, FindsAKernelThatWritesWhatIsSent) {
  const std::string text = misuse([](Bench& bench) {
    Pending pending = bench.post();
    bench.kernels.fill(bench.sent.rows(7, 8), 1);
    pending.wait();
  });
  EXPECT_TRUE(says(text,
                   "kernel fill writes tensor written while it is in flight as k step 3 to "
                   "rank 0"))
      << text;
}

TEST(Checked, FindsAKernelThatReadsWhatHasNotArrived) {
  const std::string text = misuse([](Bench& bench) {
    Pending pending = bench.post();
    const Tensor copy = blank(bench.memory, DType::kF32, 8);
    bench.kernels.copy(copy, bench.received);
    pending.wait();
  });
  EXPECT_TRUE(says(text,
                   "kernel copy reads tensor blank while it is in flight as k step 3 from "
                   "rank 0"))
      << text;
}

TEST(Checked, FindsAKernelThatWritesWhatHasNotArrived) {
  const std::string text = misuse([](Bench& bench) {
    Pending pending = bench.post();
    bench.kernels.add(bench.received, bench.sent);
    pending.wait();
  });
  EXPECT_TRUE(says(text, "kernel add")) << text;
}

TEST(Checked, LetsKernelsWorkBesideTheRowsInFlight) {
  EXPECT_EQ(misuse([](Bench& bench) {
              Pending pending = bench.comm.exchange({{0, bench.sent.rows(2, 4), {"k", 0}}},
                                                    {{0, bench.received.rows(4, 6), {"k", 0}}});
              bench.kernels.fill(bench.sent.rows(0, 2), 1);
              bench.kernels.fill(bench.sent.rows(4, 8), 1);
              bench.kernels.copy(bench.received.rows(0, 4), bench.sent.rows(4, 8));
              bench.kernels.fill(bench.received.rows(6, 8), 1);
              pending.wait();
            }),
            "");
}

TEST(Checked, FindsAWriteToWhatIsSentAtTheWait) {
  const std::string text = misuse([](Bench& bench) {
    Pending pending = bench.post();
    bench.sent.as<float>()[5] = 42;
    pending.wait();
  });
  EXPECT_EQ(text, "rank 0: k step 3 to rank 0 was written while in flight (tensor written)");
}

TEST(Checked, FindsAWriteToWhatIsReceivedAtTheWait) {
  const std::string text = misuse([](Bench& bench) {
    Pending pending = bench.post();
    bench.received.as<float>()[5] = 42;
    pending.wait();
  });
  EXPECT_EQ(text, "rank 0: k step 3 from rank 0 was written while in flight (tensor blank)");
}

TEST(Checked, ShowsNaNToWhoeverReadsTooEarly) {
  EXPECT_EQ(misuse([](Bench& bench) {
              bench.received.as<float>()[0] = 1;
              Pending pending = bench.post();
              EXPECT_TRUE(std::isnan(bench.received.as<float>()[0]));
              pending.wait();
            }),
            "");
}

TEST(Checked, FindsABufferThatIsPostedTwice) {
  const std::string text = misuse([](Bench& bench) {
    Pending first = bench.post();
    Pending second = bench.comm.exchange({}, {{0, bench.received.rows(7, 8), {"v", 4}}});
  });
  EXPECT_TRUE(says(text,
                   "v step 4 from rank 0 is posted while its buffer is in flight as k step 3 "
                   "from rank 0"))
      << text;
}

TEST(Checked, FindsAnExchangeThatReceivesIntoWhatItSends) {
  const std::string text = misuse([](Bench& bench) {
    bench.received = bench.sent;
    bench.post().wait();
  });
  EXPECT_TRUE(says(text, "one operation uses a buffer twice")) << text;
}

TEST(Checked, AllowsOneBufferInSeveralSends) {
  EXPECT_EQ(misuse([](Bench& bench) {
              const Tensor other = blank(bench.memory, DType::kF32, 8);
              Pending first = bench.post();
              Pending second =
                  bench.comm.exchange({{0, bench.sent, {"k", 3}}}, {{0, other, {"k", 3}}});
              first.wait();
              second.wait();
            }),
            "");
}

TEST(Checked, ReportsOperationsThatNobodyWaitedFor) {
  const std::string dropped = misuse([](Bench& bench) { const Pending lost = bench.post(); });
  EXPECT_EQ(dropped, "rank 0: rank 0 never waited for: exchange of k step 3 to rank 0");
  const std::string open = test::failure_of([] {
    run_ranks(1, kPatient, [](Communicator& inner) {
      CpuMemory memory;
      CheckedCommunicator comm(inner);
      const Tensor sum = memory.allocate(DType::kF32, {1, 1, 1, 1}, "sum");
      sum.as<float>()[0] = 0;
      Pending pending = comm.all_reduce(sum, {"sum", 2});
      comm.finish();
    });
  });
  EXPECT_EQ(open, "rank 0: rank 0 never waited for: all_reduce of sum step 2 from rank 0");
}

TEST(Checked, SharesItsBookWithSplitCommunicators) {
  const std::string text = misuse([](Bench& bench) {
    const auto other = bench.comm.split(0, 0);
    Pending pending = other->exchange({{0, bench.sent, {"q", 1}}}, {{0, bench.received, {"q", 1}}});
    bench.kernels.fill(bench.received, 0);
    pending.wait();
  });
  EXPECT_TRUE(says(text, "in flight as q step 1 from rank 0")) << text;
}

TEST(Checked, PassesEveryCollectiveUnchanged) {
  for (const int ranks : {1, 2, 5}) {
    run_ranks(ranks, kPatient, [](Communicator& inner) {
      CpuMemory memory;
      CheckedCommunicator comm(inner);
      const int P = comm.size();
      std::vector<Tensor> all, parts;
      for (int r = 0; r < P; ++r) {
        all.push_back(blank(memory, DType::kF32, 2));
        parts.push_back(memory.allocate(DType::kF32, {4, 1, 1, 1}, "parts"));
        for (int i = 0; i < 4; ++i) {
          parts.back().as<float>()[i] = test::summand<float>(comm.rank(), i);
        }
      }
      const Tensor reduced = memory.allocate(DType::kF32, {4, 1, 1, 1}, "reduced");
      const Tensor in_place = parts[0];
      Pending gather =
          comm.all_gather(written_by(memory, DType::kF32, 2, comm.rank()), all, {"k", 0});
      comm.reduce_scatter(parts, reduced, {"d_k", 0}).wait();
      comm.all_reduce(in_place, {"sum", 0}).wait();
      gather.wait();
      for (int i = 0; i < 4; ++i) {
        EXPECT_EQ(reduced.as<float>()[i], test::sum_over_ranks<float>(P, i));
        EXPECT_EQ(in_place.as<float>()[i], test::sum_over_ranks<float>(P, i));
      }
      for (int r = 0; r < P; ++r) {
        EXPECT_TRUE(
            same_bytes(all[static_cast<std::size_t>(r)], written_by(memory, DType::kF32, 2, r)));
      }
      comm.all_gather(all[static_cast<std::size_t>(comm.rank())], all, {"k", 1})
          .wait();  // in place
      EXPECT_TRUE(same_bytes(all.back(), written_by(memory, DType::kF32, 2, P - 1)));
      comm.finish();
    });
  }
}

TEST(Overlap, IsExactForStridedWindows) {
  CpuMemory memory;
  const Tensor whole = memory.allocate(DType::kBF16, {6, 2, 4, 3}, "whole");
  const Tensor row = whole.rows(2, 3);  // contiguous: what a message may be
  EXPECT_TRUE(overlaps(whole, row));
  EXPECT_TRUE(overlaps(row, row));
  EXPECT_TRUE(overlaps(whole.slice(2, 1, 2), row));  // one head of every token
  EXPECT_FALSE(overlaps(whole.rows(0, 2), row));
  EXPECT_FALSE(overlaps(whole.rows(3, 6), row));
  EXPECT_FALSE(overlaps(whole.rows(3, 6).slice(2, 1, 2), row));
  EXPECT_FALSE(overlaps(whole.rows(2, 2), row));
  // One head of one token of one batch, against the other heads of all tokens and batches.
  const Tensor head = row.slice(1, 1, 2).slice(2, 1, 2);
  ASSERT_TRUE(head.contiguous());
  EXPECT_TRUE(overlaps(whole.slice(2, 1, 2), head));
  EXPECT_FALSE(overlaps(whole.slice(2, 0, 1), head));
  EXPECT_FALSE(overlaps(whole.slice(2, 2, 4), head));
  EXPECT_FALSE(overlaps(whole.slice(1, 0, 1), head));
}

}  // namespace
}  // namespace sp
