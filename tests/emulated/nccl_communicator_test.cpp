// NcclCommunicator keeps the contract of communicator.hpp, on the emulator's NCCL.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/nccl/nccl_communicator.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "harness/emulator/emulator.hpp"
#include "harness/run/rank_failures.hpp"
#include "optimized/kernels/cuda/cuda_memory.hpp"

namespace sp::test {
namespace {

using namespace std::chrono_literals;
using SP_GPU::CudaMemory;
using SP_GPU::Gpu;
using SP_GPU::join_world;

using Floats = std::vector<float>;

struct Rank {
  Gpu& gpu;
  Communicator& comm;
  CudaMemory& memory;

  Tensor blank(std::int64_t rows) const {
    return memory.allocate(DType::kF32, {rows, 1, 1, 2}, "blank");
  }
  // Rows of two numbers that tell who wrote them.
  Tensor written(std::int64_t rows, int author, int step = 0) const {
    const Tensor tensor = memory.allocate(DType::kF32, {rows, 1, 1, 2}, "written");
    memory.upload(tensor, values(rows, author, step).data());
    return tensor;
  }
  static Floats values(std::int64_t rows, int author, int step = 0) {
    Floats result;
    for (std::int64_t i = 0; i < 2 * rows; ++i) {
      result.push_back(static_cast<float>(1000 * author + 100 * step + i + 1));
    }
    return result;
  }
  Floats read(const Tensor& tensor) const {
    Floats values(static_cast<std::size_t>(tensor.elements()));
    memory.download(values.data(), tensor);
    return values;
  }
  int next() const { return (comm.rank() + 1) % comm.size(); }
  int previous() const { return (comm.rank() + comm.size() - 1) % comm.size(); }
};

class NcclCommunicators : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { emulator::configure({}); }
  void TearDown() override {
    const emulator::FaultReport left = emulator::take_fault();
    EXPECT_FALSE(left.found) << left.what;
  }

  // Runs the body on every rank and throws its first failure. Nothing may be left on a device.
  static void run(int ranks, const std::function<void(Rank&)>& body,
                  std::chrono::milliseconds limit = 20s) {
    const ncclUniqueId id = SP_GPU::make_world_id();
    RankFailures failures;
    {
      std::vector<std::jthread> threads;
      for (int r = 0; r < ranks; ++r) {
        threads.emplace_back([&, r] {
          try {
            Gpu gpu(r);
            const auto comm =
                join_world(gpu, id, r, ranks, limit, std::make_shared<Traffic>(), failures.flag());
            CudaMemory memory(gpu);
            Rank rank{gpu, *comm, memory};
            try {
              body(rank);
              gpu.synchronize();
            } catch (...) {
              failures.record(r);
              throw;
            }
            EXPECT_EQ(memory.live_bytes(), 0);
          } catch (...) {
            failures.record(r);
          }
        });
      }
    }
    for (int r = 0; r < ranks; ++r) EXPECT_EQ(emulator::live_objects(r).total(), 0);
    if (failures.any()) failures.rethrow("");
  }
  static void run(const std::function<void(Rank&)>& body) { run(GetParam(), body); }

  static std::string failure_of(int ranks, const std::function<void(Rank&)>& body,
                                std::chrono::milliseconds limit = 20s) {
    try {
      run(ranks, body, limit);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  static void expect_says(const std::string& text, const std::vector<std::string>& words) {
    for (const std::string& word : words) {
      EXPECT_NE(text.find(word), std::string::npos) << word << " not in: " << text;
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Ranks, NcclCommunicators, testing::Values(1, 2, 3, 4, 8),
                         testing::PrintToStringParamName());
using NcclFailures = NcclCommunicators;

std::int64_t uneven(int rank) { return (rank * 5) % 4; }  // 0, 1, 2, 3, 0, ...

TEST_P(NcclCommunicators, ExchangesMoveEverySize) {
  run([](Rank& r) {
    for (int step = 0; step < 3; ++step) {
      const std::int64_t sent = (r.comm.rank() + step) % 3, received = (r.previous() + step) % 3;
      const Tensor to = r.blank(received), back = r.blank(1);
      r.comm
          .exchange({{r.next(), r.written(sent, r.comm.rank(), step), {"k", step}},
                     {r.previous(), r.written(1, r.comm.rank(), 7), {"back", step}}},
                    {{r.previous(), to, {"k", step}}, {r.next(), back, {"back", step}}})
          .wait();
      EXPECT_EQ(r.read(to), Rank::values(received, r.previous(), step));
      EXPECT_EQ(r.read(back), Rank::values(1, r.next(), 7));
    }
  });
}

TEST_P(NcclCommunicators, GathersEqualAndUnevenParts) {
  run([](Rank& r) {
    const int P = r.comm.size(), me = r.comm.rank();
    const Tensor whole = r.blank(2 * P);
    std::vector<Tensor> adjacent, apart;
    for (int p = 0; p < P; ++p) {
      adjacent.push_back(whole.rows(2 * p, 2 * p + 2));
      apart.push_back(r.blank(uneven(p)));
    }
    r.comm.all_gather(r.written(2, me), adjacent, {"k", 0}).wait();
    r.comm.all_gather(r.written(uneven(me), me), apart, {"v", 0}).wait();
    for (int p = 0; p < P; ++p) {
      EXPECT_EQ(r.read(adjacent[static_cast<std::size_t>(p)]), Rank::values(2, p));
      EXPECT_EQ(r.read(apart[static_cast<std::size_t>(p)]), Rank::values(uneven(p), p));
    }
    r.comm.all_gather(adjacent[static_cast<std::size_t>(me)], adjacent, {"in place", 0}).wait();
    EXPECT_EQ(r.read(adjacent.back()), Rank::values(2, P - 1));
  });
}

TEST_P(NcclCommunicators, SumsEqualAndUnevenParts) {
  run([](Rank& r) {
    const int P = r.comm.size(), me = r.comm.rank();
    const auto sum_of = [&](std::int64_t rows, int step) {
      Floats sum(static_cast<std::size_t>(2 * rows));
      for (int p = 0; p < P; ++p) {
        const Floats more = Rank::values(rows, p, step);
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += more[i];
      }
      return sum;
    };
    const Tensor whole = r.blank(P), sum = r.blank(1);
    std::vector<Tensor> adjacent, apart;
    for (int p = 0; p < P; ++p) {
      adjacent.push_back(whole.rows(p, p + 1));
      r.memory.upload(adjacent.back(), Rank::values(1, me, p).data());
      apart.push_back(r.written(uneven(p), me, p));
    }
    r.comm.reduce_scatter(adjacent, sum, {"d_k", 0}).wait();
    EXPECT_EQ(r.read(sum), sum_of(1, me));
    const Tensor uneven_sum = r.blank(uneven(me));
    r.comm.reduce_scatter(apart, uneven_sum, {"d_v", 0}).wait();
    EXPECT_EQ(r.read(uneven_sum), sum_of(uneven(me), me));
    r.comm.reduce_scatter(apart, apart[static_cast<std::size_t>(me)], {"in place", 0}).wait();
    EXPECT_EQ(r.read(apart[static_cast<std::size_t>(me)]), sum_of(uneven(me), me));
    const Tensor all = r.written(3, me);
    r.comm.all_reduce(all, {"all", 0}).wait();
    EXPECT_EQ(r.read(all), sum_of(3, 0));
    r.comm.all_reduce(r.blank(0), {"nothing", 0}).wait();
  });
}

TEST_P(NcclCommunicators, DoublesAreSummedAsDoubles) {
  run([](Rank& r) {
    const Tensor x = r.memory.allocate(DType::kF64, {1, 1, 1, 1}, "x");
    const double mine = 1 + 0x1p-40;
    r.memory.upload(x, &mine);
    r.comm.all_reduce(x, {"x", 0}).wait();
    double sum = 0;
    r.memory.download(&sum, x);
    EXPECT_EQ(sum, r.comm.size() * mine);
  });
}

TEST_P(NcclCommunicators, AllToAllAndBroadcastDeliver) {
  run([](Rank& r) {
    const int P = r.comm.size(), me = r.comm.rank();
    const auto rows = [](int from, int to) { return std::int64_t{(from + 2 * to) % 3}; };
    std::vector<Tensor> sends, receives;
    for (int p = 0; p < P; ++p) {
      sends.push_back(r.written(rows(me, p), me, p));
      receives.push_back(r.blank(rows(p, me)));
    }
    r.comm.all_to_all(sends, receives, {"heads", 0}).wait();
    for (int p = 0; p < P; ++p) {
      EXPECT_EQ(r.read(receives[static_cast<std::size_t>(p)]), Rank::values(rows(p, me), p, me));
    }
    for (int root = 0; root < P; ++root) {
      const Tensor x = root == me ? r.written(2, me) : r.blank(2);
      r.comm.broadcast(x, root, {"x", root}).wait();
      EXPECT_EQ(r.read(x), Rank::values(2, root));
    }
  });
}

TEST_P(NcclCommunicators, SplitsAndGroupsAreChannelsOfTheirOwn) {
  run([](Rank& r) {
    const int me = r.comm.rank();
    Communicator& second = r.comm.channel("second");
    EXPECT_EQ(second.rank(), me);
    const auto half = r.comm.split(me % 2, -me);
    EXPECT_EQ(half->size(), (r.comm.size() + 1 - me % 2) / 2);
    // In flight together, waited for in the other order.
    const Tensor a = r.written(2, me), b = r.written(2, me), c = r.written(2, me);
    Pending x = r.comm.all_reduce(a, {"a", 0}), y = second.all_reduce(b, {"b", 0}),
            z = half->broadcast(c, 0, {"c", 0});
    z.wait();
    y.wait();
    x.wait();
    EXPECT_EQ(r.read(a), r.read(b));
    const int first = (r.comm.size() - 1 - me % 2) / 2 * 2 + me % 2;  // the highest of the colour
    EXPECT_EQ(r.read(c), Rank::values(2, first));
  });
}

TEST_P(NcclCommunicators, AMessageCarriesWhatTheBufferHeldAtThePost) {
  run([](Rank& r) {
    const Tensor mine = r.written(1, r.comm.rank()), theirs = r.blank(1);
    for (int step = 0; step < 5; ++step) {
      r.memory.upload(mine, Rank::values(1, r.comm.rank(), step).data());  // on the compute stream
      r.comm.exchange({{r.next(), mine, {"x", step}}}, {{r.previous(), theirs, {"x", step}}})
          .wait();
      EXPECT_EQ(r.read(theirs), Rank::values(1, r.previous(), step));
    }
  });
}

TEST_P(NcclCommunicators, EventsAreUsedAgain) {
  run([](Rank& r) {
    const Tensor x = r.written(1, 0);
    int after_some = 0;
    for (int step = 0; step < 40; ++step) {
      r.comm.all_reduce(x, {"x", step}).wait();
      r.gpu.synchronize();
      if (step == 5) after_some = emulator::live_objects(r.gpu.ordinal()).events;
    }
    EXPECT_EQ(emulator::live_objects(r.gpu.ordinal()).events, after_some);
  });
}

TEST_P(NcclCommunicators, AnOperationMayBeLeftUnwaited) {
  run([](Rank& r) {
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
  run(2, [](Rank& r) {
    SP_GPU::measure_communication(r.comm, true);
    const Tensor x = r.written(1, 0);
    if (r.comm.rank() == 1) std::this_thread::sleep_for(100ms);
    r.comm.all_reduce(x, {"x", 0}).wait();
    const double waited = SP_GPU::take_communication(r.comm).exposed_s;
    if (r.comm.rank() == 0) {
      EXPECT_GE(waited, 0.05);
    }
    EXPECT_LE(waited, 10.0);
    EXPECT_EQ(SP_GPU::take_communication(r.comm).exposed_s, 0.0);
  });
}

TEST_F(NcclFailures, ATimeOutSaysWhatEveryRankWaitsFor) {
  const std::string text = failure_of(
      3,
      [](Rank& r) {
        if (r.comm.rank() == 1) std::this_thread::sleep_for(1s);  // neither computes nor waits
        const Tensor mine = r.written(2, r.comm.rank()), theirs = r.blank(2);
        r.comm.exchange({{r.next(), mine, {"k", 3}}}, {{r.previous(), theirs, {"k", 3}}}).wait();
        r.gpu.synchronize();
      },
      300ms);
  expect_says(text, {"the time limit of 0.3 s has passed", "rank 2 of the world waits since 0.3 s",
                     "for k step 3 (16 bytes) from rank 1", "exchange"});
}

TEST_F(NcclFailures, ASplitThatOnePeerNeverMakesTimesOut) {
  const std::string text = failure_of(
      2,
      [](Rank& r) {
        if (r.comm.rank() == 1) {
          std::this_thread::sleep_for(1s);
        } else {
          r.comm.split(0, 0);
        }
      },
      200ms);
  expect_says(text, {"rank 0", "the time limit of 0.2 s has passed in a call of NCCL"});
  emulator::take_fault();  // the emulator's NCCL names the abort
}

TEST_F(NcclFailures, OneFailingRankEndsTheOthers) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string text = failure_of(4, [](Rank& r) {
    const Tensor x = r.written(2, r.comm.rank());
    Pending pending = r.comm.all_reduce(x, {"x", 0});
    pending.wait();
    r.gpu.synchronize();
    if (r.comm.rank() == 2) throw Error(ErrorKind::kInternal, "no more paper");
    r.comm.all_reduce(x, {"x", 1}).wait();
    r.gpu.synchronize();
  });
  EXPECT_EQ(text, "rank 2: no more paper");
  EXPECT_LE(std::chrono::steady_clock::now() - begin, 10s);
}

TEST_F(NcclFailures, AFaultOnOneDeviceEndsAll) {
  const std::string text = failure_of(2, [](Rank& r) {
    const Tensor x = r.blank(2);  // never written
    r.comm.all_reduce(x, {"x", 0}).wait();
    r.gpu.synchronize();
  });
  expect_says(text, {"rank ", "uninitialised"});
  for (int rank = 0; rank < 2; ++rank) {
    cudaSetDevice(rank);
    cudaDeviceReset();
  }
  emulator::take_fault();
}

TEST_F(NcclFailures, ASizeThatDiffersIsNamedWithBothSides) {
  const std::string text = failure_of(2, [](Rank& r) {
    const Tensor x = r.written(2 + r.comm.rank(), r.comm.rank());
    r.comm.all_reduce(x, {"x", 0}).wait();
    r.gpu.synchronize();
  });
  expect_says(text, {"the counts differ", "4 f32", "6 f32"});
  emulator::take_fault();
}

}  // namespace
}  // namespace sp::test
