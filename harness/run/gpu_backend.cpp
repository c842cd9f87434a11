// SPDX-License-Identifier: Apache-2.0
#include "harness/run/gpu_backend.hpp"

#include <fmt/format.h>

#include <latch>
#include <thread>
#include <vector>

#include "harness/run/gpu_machine.hpp"
#include "harness/run/rank_failures.hpp"
#include "optimized/comm/nccl/nccl_communicator.hpp"
#ifdef SP_EMULATOR
#include "harness/emulator/emulator.hpp"
#endif

namespace sp::SP_GPU {
namespace {

#ifdef SP_EMULATOR
constexpr const char* kName = "emulated";
constexpr bool kSurvivesFailure = true;
constexpr std::int64_t kLongest = 130;  // it executes every thread of a kernel one after the other

// The first fault since the last call; devices are as new.
std::string clean_up(int ranks, bool failed) {
  for (int rank = 0; failed && rank < ranks; ++rank) {
    cudaSetDevice(rank);
    cudaDeviceReset();
  }
  if (failed) emulator::take_leaks();  // a failed rank may leave what it had
  std::string found = emulator::take_fault().what;
  for (int rank = 0; !failed && rank < ranks; ++rank) {
    const emulator::Objects left = emulator::live_objects(rank);
    if (left.total() == 0) continue;
    found += fmt::format("device {} still has {} streams, {} events, {} allocations", rank,
                         left.streams, left.events, left.allocations);
    break;
  }
  return found;
}
#else
constexpr const char* kName = "cuda";
constexpr bool kSurvivesFailure = false;
constexpr std::int64_t kLongest = 5000;
std::string clean_up(int, bool) { return {}; }
#endif

class GpuBackend final : public Backend {
 public:
  explicit GpuBackend(std::chrono::milliseconds time_limit) : time_limit_(time_limit) {}
  const char* name() const override { return kName; }
  int most_ranks() const override { return device_count(); }
  Operands operands() const override { return Operands::kStorage; }
  bool knows_f64() const override { return false; }
  std::int64_t longest() const override { return kLongest; }
  void run(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) override;
  bool survives_failure() const override { return kSurvivesFailure; }
  bool can_be_watched() const override {
    return kSurvivesFailure;
  }  // the emulator's memory is the host's
  bool leads() const override { return true; }
  bool agree(bool leaders_verdict) override { return leaders_verdict; }

 private:
  std::chrono::milliseconds time_limit_;
};

void GpuBackend::run(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) {
  check_rig(rig);
  if (ranks > most_ranks()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{} ranks need as many GPUs; there are {}", ranks, most_ranks()));
  }
  const ncclUniqueId id = make_world_id();
  RankFailures failures;
  std::latch ready(ranks);  // nobody joins, and waits for all, before every GPU is known to work
  const auto run_rank = [&](int rank) {
    try {
      std::unique_ptr<Gpu> gpu;
      try {
        gpu = std::make_unique<Gpu>(rank);
      } catch (...) {
        failures.record(rank);
      }
      ready.arrive_and_wait();
      if (failures.any()) return;
      const auto world = join_world(*gpu, id, rank, ranks, time_limit_, std::make_shared<Traffic>(),
                                    failures.flag());
      try {
        run_on_gpu(*gpu, *world, rig, body);
      } catch (...) {
        failures.record(rank);  // before its end makes others fail
        throw;                  // so that the communicators are aborted, not closed
      }
    } catch (...) {
      failures.record(rank);
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      try {
        threads.emplace_back(run_rank, rank);
      } catch (...) {  // no more threads to be had: the started ones must not wait for this one
        failures.record(rank);
        ready.count_down(ranks - rank);
        break;
      }
    }
  }
  const std::string fault = clean_up(ranks, failures.any());
  if (failures.any()) failures.rethrow(fault.empty() ? "" : "\nthe emulator found: " + fault);
  if (!fault.empty()) throw Error(ErrorKind::kInternal, "the emulator found: " + fault);
}

}  // namespace

std::unique_ptr<Backend> make_backend(std::chrono::milliseconds time_limit) {
  if (device_count() == 0) refuse_without_gpu();
  return std::make_unique<GpuBackend>(time_limit);
}

std::vector<std::pair<std::string, std::string>> describe_gpus() {
  const auto version = [](int number) {  // 13000 is 13.0
    return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
  };
  std::vector<std::pair<std::string, std::string>> entries;
  int runtime = 0, driver = 0, nccl = 0;
  if (cudaRuntimeGetVersion(&runtime) == cudaSuccess)
    entries.emplace_back("cuda_runtime", version(runtime));
  if (cudaDriverGetVersion(&driver) == cudaSuccess)
    entries.emplace_back("cuda_driver", driver == 0 ? "none" : version(driver));
  if (ncclGetVersion(&nccl) == ncclSuccess)
    entries.emplace_back("nccl",
                         fmt::format("{}.{}.{}", nccl / 10000, nccl % 10000 / 100, nccl % 100));
  const int devices = device_count();
  entries.emplace_back("gpus", std::to_string(devices));
  for (int device = 0; device < devices; ++device) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) break;
    entries.emplace_back(
        fmt::format("gpu_{}", device),
        fmt::format("{}, sm_{}{}, {} multiprocessors, {} MiB", properties.name, properties.major,
                    properties.minor, properties.multiProcessorCount,
                    properties.totalGlobalMem >> 20));
  }
  return entries;
}

}  // namespace sp::SP_GPU
