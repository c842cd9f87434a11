// The emulated back-end of GPUs: ranks, failures, faults, mutants.
// SPDX-License-Identifier: Apache-2.0
#include "harness/run/gpu_backend.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>

#include "harness/emulator/emulator.hpp"
#include "harness/emulator/machine.hpp"
#include "harness/mutants/mutants.hpp"
#include "harness/run/meet.hpp"
#include "harness/run/verify.hpp"
#include "optimized/algorithms/registry.hpp"
#include "optimized/comm/nccl/nccl_communicator.hpp"
#include "tests/emulated/flag_operations.hpp"

namespace sp::test {
namespace {

class GpuBackends : public testing::TestWithParam<Transport> {
 protected:
  void SetUp() override { emulator::configure({}); }
  static std::unique_ptr<Backend> make(std::chrono::milliseconds limit = std::chrono::seconds(30)) {
    return emulated::make_backend(limit, GetParam());
  }
  static std::string failure_of(Backend& backend, int ranks, const Rig& rig,
                                const std::function<void(Machine&)>& body) {
    try {
      backend.run(ranks, rig, body);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  static bool says(const std::string& text, const std::string& words) {
    return text.find(words) != std::string::npos;
  }
};

TEST_P(GpuBackends, RanksComputeOnTheirGpus) {
  const auto backend = make();
  EXPECT_STREQ(backend->name(), "emulated");
  const bool local = GetParam() == Transport::kLocal;
  EXPECT_EQ(backend->most_ranks(), local ? 8 : 64);
  EXPECT_EQ(backend->devices(5), local ? 3 : 5);
  EXPECT_TRUE(backend->leads());
  std::atomic<int> ranks = 0;
  backend->run(5, {}, [&](Machine& machine) {
    const Tensor x = machine.memory.allocate(DType::kF32, {1, 1, 1, 1}, "x");
    machine.kernels.fill(x, machine.comm.rank() + 1);
    machine.comm.all_reduce(x, {"x", 0}).wait();
    machine.kernels.add(x, x);
    float sum = 0;
    machine.memory.download(&sum, x);
    EXPECT_EQ(sum, 30);
    ++ranks;
  });
  EXPECT_EQ(ranks, 5);
}

using AnyGpuBackend = GpuBackends;

TEST_F(AnyGpuBackend, NoDeviceIsAnErrorThatNamesTheWayOut) {
  emulator::configure({.devices = 0});
  try {
    emulated::make_backend(std::chrono::seconds(1));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kEnvironment);
    EXPECT_TRUE(says(error.what(), "no CUDA device found")) << error.what();
  }
  emulator::configure({.devices = 2});
  const auto nccl = emulated::make_backend(std::chrono::seconds(30), Transport::kNccl);
  EXPECT_EQ(nccl->most_ranks(), 2);
  EXPECT_TRUE(says(failure_of(*nccl, 3, {}, meet),
                   "3 ranks are too many: over NCCL each needs a GPU; allowed: 1..2"));
  // Left to itself it shares them.
  const auto either = emulated::make_backend(std::chrono::seconds(30));
  EXPECT_EQ(either->most_ranks(), 8);
  EXPECT_EQ(either->devices(2), 2);
  for (const auto& [ranks, devices] : {std::pair{3, 2}, {5, 2}, {8, 2}}) {
    EXPECT_EQ(either->devices(ranks), devices);
    EXPECT_EQ(failure_of(*either, ranks, {}, meet), "");
  }
}

TEST_F(AnyGpuBackend, CopiesNeedDevicesThatReachEachOther) {
  emulator::configure({.peers = false});
  const auto local = emulated::make_backend(std::chrono::seconds(30), Transport::kLocal);
  EXPECT_EQ(failure_of(*local, 2, {}, meet), "");  // on one device
  EXPECT_TRUE(says(failure_of(*local, 3, {}, meet), "GPUs 0 and 1 cannot reach each other"));
  const auto nccl = emulated::make_backend(std::chrono::seconds(30), Transport::kNccl);
  EXPECT_EQ(failure_of(*nccl, 3, {}, meet), "");
}

// Rank 1 sends when rank 0 has launched a kernel, for the first time and while it receives.
TEST_F(AnyGpuBackend, KernelsAreLoadedBeforeTheirFirstLaunch) {
  const auto backend = emulated::make_backend(std::chrono::seconds(30), Transport::kNccl);
  std::atomic<bool> launched{false};
  const auto body = [&](Machine& machine) {
    const Tensor x = machine.memory.allocate(DType::kF32, {4, 1, 1, 1}, "x");
    const Tensor y = machine.memory.allocate(DType::kF32, {4, 1, 1, 1}, "y");
    if (machine.comm.rank() == 0) {
      Pending pending = machine.comm.exchange({}, {{1, x, {"x", 0}}});
      machine.kernels.fill(y, 1);
      launched = true;
      emulator::notify_all_hosts();
      pending.wait();
    } else {
      machine.kernels.fill(x, 1);
      cudaStream_t stream = nullptr;
      cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
      emulator::enqueue(stream, std::make_unique<emulated::Waits>(launched, "waits for a launch"));
      cudaStreamSynchronize(stream);
      cudaStreamDestroy(stream);
      machine.comm.exchange({{0, x, {"x", 0}}}, {}).wait();
    }
  };
  EXPECT_EQ(failure_of(*backend, 2, {}, body), "");
}

TEST_F(AnyGpuBackend, WhatNoDeviceCanDoIsOneLine) {
  const auto said = [](auto&& f) -> std::string {
    try {
      f();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(said([] { SP_GPU::check_grid(dim3(9, 65535, 65535), "kernel"); }), "");
  for (const dim3 grid : {dim3(1, 65536, 1), dim3(1, 1, 70000)})
    EXPECT_TRUE(says(said([&] { SP_GPU::check_grid(grid, "kernel"); }),
                     "heads and sequences are too many; allowed: 65535 each"));
  EXPECT_EQ(said([] { SP_GPU::check_version(22600); }), "");
  EXPECT_TRUE(says(said([] { SP_GPU::check_version(22501); }), "NCCL 2.25.1 is too old"));
}

TEST_P(GpuBackends, WhatWatchesHostMemoryIsRefused) {
  const auto backend = make();
  for (const auto change : {+[](Rig& rig) { rig.checked = true; }, +[](Rig& rig) { rig.chaos = 7; },
                            +[](Rig& rig) { rig.fence = Fence::kPoisonAndCanary; }}) {
    Rig rig;
    change(rig);
    EXPECT_TRUE(says(failure_of(*backend, 1, rig, meet), "watch host memory"));
  }
}

TEST_P(GpuBackends, TheFirstFailureIsTheOneReportedAndTheNextRunIsSound) {
  const auto backend = make();
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(failure_of(*backend, 4, {},
                         [](Machine& machine) {
                           meet(machine);
                           if (machine.comm.rank() == 1)
                             throw Error(ErrorKind::kInternal, "no more paper");
                           meet(machine);
                           const Tensor x = machine.memory.allocate(DType::kF32, {1, 1, 1, 1}, "x");
                           machine.kernels.fill(x, 0);
                           float y;
                           machine.memory.download(&y, x);
                         }),
              "rank 1: no more paper");
    EXPECT_TRUE(backend->survives_failure());
    EXPECT_EQ(failure_of(*backend, 4, {}, meet), "");
  }
  EXPECT_EQ(failure_of(*backend, 2, {}, [](Machine&) { throw std::out_of_range("beyond"); })
                .substr(6),  // of either rank
            ": beyond");
}

TEST_P(GpuBackends, AFullDeviceIsAShortageOfMemoryAndTheNextRunIsSound) {
  const auto backend = make();
  std::atomic<int> shortages = 0;
  const std::string text = failure_of(*backend, 2, {}, [&](Machine& machine) {
    try {
      const std::int64_t more_than_there_is = std::int64_t{1} << 30;
      machine.memory.allocate(DType::kF32, {more_than_there_is, 1, 1, 1}, "x");
    } catch (const std::bad_alloc&) {  // as `bench` sees it
      ++shortages;
      throw;
    }
  });
  EXPECT_GE(shortages, 1);
  EXPECT_TRUE(says(text, " has no memory for 4294967296 bytes more: ")) << text;
  EXPECT_TRUE(says(text, " of 1024 MiB are free")) << text;
  EXPECT_TRUE(backend->survives_failure());
  EXPECT_EQ(failure_of(*backend, 2, {}, meet), "");
}

TEST_P(GpuBackends, AFaultOfTheEmulatorIsInTheError) {
  const auto backend = make();
  const std::string text = failure_of(*backend, 2, {}, [](Machine& machine) {
    const Tensor x = machine.memory.allocate(DType::kF32, {4, 1, 1, 1}, "x");
    const Tensor y = machine.memory.allocate(DType::kF32, {4, 1, 1, 1}, "y");
    machine.kernels.copy(x, y);  // y was never written
  });
  EXPECT_TRUE(says(text, "the emulator found: ")) << text;
  EXPECT_TRUE(says(text, "uninitialised")) << text;
  EXPECT_EQ(failure_of(*backend, 2, {}, meet), "");
}

TEST_P(GpuBackends, AReceiveThatIsNotWaitedForIsFound) {
  const std::string text = failure_of(*make(), 2, {}, [](Machine& machine) {
    const Tensor x = machine.memory.allocate(DType::kF32, {4, 1, 1, 1}, "x");
    const Tensor y = machine.memory.allocate(DType::kF32, {4, 1, 1, 1}, "y");
    machine.kernels.fill(x, 1);
    machine.kernels.fill(y, 1);
    const int peer = 1 - machine.comm.rank();
    Pending pending = machine.comm.exchange({{peer, x, {"x", 0}}}, {{peer, y, {"x", 0}}});
    machine.kernels.add(x, y);
    pending.wait();
  });
  EXPECT_TRUE(says(text, "the emulator found: ")) << text;
}

// The mutants that edit data, those that edit messages, and those that keep tensors of their own.
TEST_P(GpuBackends, MutantsAreKilled) {
#ifdef SP_SANITIZE_THREAD
  GTEST_SKIP() << "the hunt takes minutes; races of wrong algorithms are not looked for";
#endif
  const auto backend = make(std::chrono::seconds(5));
  const std::vector<Mutant> all = all_mutants();
  for (const char* id : {"merge_keeps_lse", "backward_stale_keys", "k_v_swapped", "send_lost",
                         "wait_forgotten", "not_summed", "decays_in_storage"}) {
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const Mutant& m) { return m.id == std::string(id); });
    ASSERT_NE(found, all.end()) << id;
    Mutant mutant = *found;
    mutant.algorithms.resize(1);
    mutant.pins.ranks = {2, 3};
    if (!mutant.pins.dtype) mutant.pins.dtype = DType::kBF16;
    const MutantVerdict verdict = hunt(*backend, {}, mutant, 40, 20).front();
    EXPECT_TRUE(verdict.killed) << id;
  }
}

// As on real GPUs: two worlds on the same devices, and groups that live as long as they do.
TEST_F(AnyGpuBackend, RanksThatHaveMetStayTogether) {
  {
    const auto backend =
        emulated::make_backend(std::chrono::seconds(30), Transport::kNccl, Worlds::kKept);
    std::atomic<const Communicator*> world = nullptr, group = nullptr;
    const auto look = [&](Machine& machine) {
      Communicator& pair = machine.comm.group("pairs", {machine.comm.rank() / 2 * 2, 1, 2});
      meet(machine);
      if (machine.comm.rank() == 0) world = &machine.comm, group = &pair;
    };
    EXPECT_EQ(failure_of(*backend, 4, {}, look), "");
    const Communicator* const first = group;
    EXPECT_EQ(failure_of(*backend, 2, {}, look), "");
    EXPECT_NE(group, first);
    EXPECT_EQ(failure_of(*backend, 4, {}, look), "");
    EXPECT_EQ(group, first);
    EXPECT_GT(emulator::live_objects(0).streams, 0);

    EXPECT_EQ(failure_of(*backend, 4, {},
                         [](Machine& machine) {
                           if (machine.comm.rank() == 3)
                             throw Error(ErrorKind::kInternal, "no more ink");
                           meet(machine);
                         }),
              "rank 3: no more ink");
    EXPECT_EQ(emulator::live_objects(0).total(), 0);
    EXPECT_TRUE(backend->survives_failure());
    EXPECT_EQ(failure_of(*backend, 4, {}, look), "");
  }
  for (int device = 0; device < 4; ++device) EXPECT_EQ(emulator::live_objects(device).total(), 0);
  EXPECT_FALSE(emulator::take_fault().found);
}

// Nobody but the ranks counts as somebody who may yet send.
TEST_F(AnyGpuBackend, AfterAFailureADeadlockIsStillFoundAtOnce) {
  const auto backend = emulated::make_backend(std::chrono::minutes(5), Transport::kNccl);
  const auto fails = [](Machine&) { throw Error(ErrorKind::kInternal, "no more string"); };
  EXPECT_NE(failure_of(*backend, 2, {}, fails), "");
  const auto begin = std::chrono::steady_clock::now();
  const std::string text = failure_of(*backend, 2, {}, [](Machine& machine) {
    if (machine.comm.rank() == 1) return;
    const Tensor x = machine.memory.allocate(DType::kF32, {4, 1, 1, 1}, "x");
    machine.comm.exchange({}, {{1, x, {"x", 0}}}).wait();
  });
  EXPECT_TRUE(says(text, "deadlock")) << text;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));  // 60 before it
}

TEST_P(GpuBackends, WhatIsRightPasses) {
  const auto backend = make(std::chrono::seconds(300));  // it takes long with sanitizers
  VerifyOptions options;
  options.algorithms = {find_algorithm("ring/zigzag")};
  options.pins.ranks = {3};
  options.pins.dtype = DType::kBF16;
  options.cases = 2;
  const AlgorithmReport report = verify(*backend, options).front();
  EXPECT_TRUE(report.passed()) << (report.failure ? report.failure->message : "");
}

std::string name_of(const testing::TestParamInfo<Transport>& of) {
  return of.param == Transport::kLocal ? "local" : "nccl";
}
INSTANTIATE_TEST_SUITE_P(Transports, GpuBackends,
                         testing::Values(Transport::kNccl, Transport::kLocal), name_of);

}  // namespace
}  // namespace sp::test
