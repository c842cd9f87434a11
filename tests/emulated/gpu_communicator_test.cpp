// The communicators of GPUs keep the contract of communicator.hpp: over the emulator's NCCL, a device
// for every rank, and by copies, one device for all.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "harness/emulator/emulator.hpp"
#include "harness/run/rank_failures.hpp"
#include "optimized/comm/local/local_world.hpp"
#include "optimized/comm/nccl/nccl_communicator.hpp"
#include "optimized/kernels/cuda/cuda_memory.hpp"

namespace sp::test {
namespace {

using namespace std::chrono_literals;
using SP_GPU::CudaMemory;
using SP_GPU::Gpu;
using SP_GPU::join_world;
using SP_GPU::LocalWorld;

using Floats = std::vector<float>;

struct Rank {
  Gpu& gpu;
  Communicator& comm;
  CommunicationMeter& meter;
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

struct Setting {
  bool local;
  int ranks;
};
std::string name_of(const testing::TestParamInfo<Setting>& info) {
  return (info.param.local ? "copies_" : "nccl_") + std::to_string(info.param.ranks);
}

class GpuCommunicators : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override { emulator::configure({}); }
  void TearDown() override {
    const emulator::FaultReport left = emulator::take_fault();
    EXPECT_FALSE(left.found) << left.what;
  }

  using Body = std::function<void(Rank&)>;

  // Runs the body on every rank and throws its first failure. Nothing may be left on a device.
  static void run(const Setting& setting, const Body& body, std::chrono::milliseconds limit = 20s) {
    setting.local ? run_locally(setting.ranks, body, limit)
                  : run_over_nccl(setting.ranks, body, limit);
  }
  static void run(const Body& body) { run(GetParam(), body); }

  static void run_body(Gpu& gpu, const GpuWorld& world, const Body& body) {
    CudaMemory memory(gpu);
    Rank rank{gpu, *world.comm, *world.meter, memory};
    body(rank);
    gpu.synchronize();
    EXPECT_EQ(memory.live_bytes(), 0);
  }

  static void run_over_nccl(int ranks, const Body& body, std::chrono::milliseconds limit) {
    const ncclUniqueId id = SP_GPU::make_world_id();
    RankFailures failures;
    {
      std::vector<std::jthread> threads;
      for (int r = 0; r < ranks; ++r) {
        threads.emplace_back([&, r] {
          try {
            Gpu gpu(r);
            const GpuWorld world =
                join_world(gpu, id, r, ranks, limit, std::make_shared<Traffic>(), failures.flag());
            try {
              run_body(gpu, world, body);
            } catch (...) {
              failures.record(r);
              throw;
            }
          } catch (...) {
            failures.record(r);
          }
        });
      }
    }
    for (int r = 0; r < ranks; ++r) EXPECT_EQ(emulator::live_objects(r).total(), 0);
    if (failures.any()) failures.rethrow("");
  }

  static void run_locally(int ranks, const Body& body, std::chrono::milliseconds limit) {
    LocalWorld local(ranks, limit);
    {
      std::vector<std::jthread> threads;
      for (int r = 0; r < ranks; ++r) {
        threads.emplace_back([&, r] {
          try {
            Gpu gpu(0);
            const GpuWorld world = local.join(gpu, r, std::make_shared<Traffic>());
            try {
              run_body(gpu, world, body);
              local.finish(r);
            } catch (...) {
              local.fail(r, std::current_exception());
            }
          } catch (...) {
            local.fail(r, std::current_exception());
          }
        });
      }
    }
    EXPECT_EQ(emulator::live_objects(0).total(), 0);
    local.rethrow_failure();
  }

  static std::string failure_of(const Setting& setting, const Body& body,
                                std::chrono::milliseconds limit = 20s) {
    try {
      run(setting, body, limit);
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

std::vector<Setting> settings() {
  std::vector<Setting> all;
  for (const bool local : {false, true})
    for (const int ranks : {1, 2, 3, 4, 8}) all.push_back({local, ranks});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Ranks, GpuCommunicators, testing::ValuesIn(settings()), name_of);
using NcclFailures = GpuCommunicators;

std::int64_t uneven(int rank) { return (rank * 5) % 4; }  // 0, 1, 2, 3, 0, ...

TEST_P(GpuCommunicators, ExchangesMoveEverySize) {
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

TEST_P(GpuCommunicators, GathersEqualAndUnevenParts) {
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

TEST_P(GpuCommunicators, SumsEqualAndUnevenParts) {
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

TEST_P(GpuCommunicators, DoublesAreSummedAsDoubles) {
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

TEST_P(GpuCommunicators, AllToAllAndBroadcastDeliver) {
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

TEST_P(GpuCommunicators, SplitsAndGroupsAreChannelsOfTheirOwn) {
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

TEST_P(GpuCommunicators, AMessageCarriesWhatTheBufferHeldAtThePost) {
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

TEST_P(GpuCommunicators, EventsAreUsedAgain) {
  run([](Rank& r) {
    const Tensor x = r.written(1, 0);
    int after_some = 0;
    for (int step = 0; step < 80; ++step) {
      r.comm.all_reduce(x, {"x", step}).wait();
      r.gpu.synchronize();
      if (step == 5) after_some = emulator::live_objects(r.gpu.ordinal()).events;
    }
    // Other ranks share the device of copies, and are at other steps: one step has up to 4 P events.
    const int others = GetParam().local ? 4 * r.comm.size() * r.comm.size() : 0;
    EXPECT_LE(emulator::live_objects(r.gpu.ordinal()).events, after_some + others);
  });
}

TEST_F(NcclFailures, AnOperationMayBeLeftUnwaited) {
  run({false, 3}, [](Rank& r) {
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
  run({false, 2}, [](Rank& r) {
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
  const std::string text = failure_of({false, 3}, exchange_while_rank_1_sleeps, 300ms);
  expect_says(text, {"the time limit of 0.3 s has passed", "rank 2 of the world waits since 0.3 s",
                     "for k step 3 (16 bytes) from rank 1", "exchange"});
}

TEST_F(NcclFailures, ASplitThatOnePeerNeverMakesTimesOut) {
  const std::string text = failure_of({false, 2}, split_without_rank_1, 200ms);
  expect_says(text, {"rank 0", "the time limit of 0.2 s has passed in a call of NCCL"});
  emulator::take_fault();  // the emulator's NCCL names the abort
}

TEST_F(NcclFailures, OneFailingRankEndsTheOthers) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(failure_of({false, 4}, fail_on_rank_2), "rank 2: no more paper");
  EXPECT_LE(std::chrono::steady_clock::now() - begin, 10s);
}

TEST_F(NcclFailures, AFaultOnOneDeviceEndsAll) {
  expect_says(failure_of({false, 2}, sum_what_nobody_wrote), {"rank ", "uninitialised"});
  for (int rank = 0; rank < 2; ++rank) {
    cudaSetDevice(rank);
    cudaDeviceReset();
  }
  emulator::take_fault();
}

TEST_F(NcclFailures, ASizeThatDiffersIsNamedWithBothSides) {
  expect_says(failure_of({false, 2}, sum_two_sizes), {"the counts differ", "4 f32", "6 f32"});
  emulator::take_fault();
}

using LocalFailures = GpuCommunicators;

TEST_F(LocalFailures, CopiesAndWaitsAreMeasured) {
  run({true, 2}, [](Rank& r) {
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
  const std::string text = failure_of({true, 3}, exchange_while_rank_1_sleeps, 300ms);
  expect_says(text, {"0.3 s", "rank 2", "k step 3 (16 bytes) from rank 1"});
}

TEST_F(LocalFailures, ASplitThatOnePeerNeverMakesTimesOut) {
  const std::string text = failure_of({true, 2}, split_without_rank_1, 200ms);
  expect_says(text, {"0.2 s", "split step 0", "from rank 1"});
}

TEST_F(LocalFailures, OneFailingRankEndsTheOthers) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(failure_of({true, 4}, fail_on_rank_2), "rank 2: no more paper");
  EXPECT_LE(std::chrono::steady_clock::now() - begin, 10s);
}

TEST_F(LocalFailures, AFaultOfTheDeviceEndsAll) {
  expect_says(failure_of({true, 2}, sum_what_nobody_wrote), {"rank ", "uninitialised"});
  cudaSetDevice(0);
  cudaDeviceReset();
  emulator::take_fault();
}

TEST_F(LocalFailures, ASizeThatDiffersIsNamedWithBothSides) {
  expect_says(failure_of({true, 2}, sum_two_sizes), {"x step 0", "8 bytes", "12 bytes"});
}

}  // namespace
}  // namespace sp::test
