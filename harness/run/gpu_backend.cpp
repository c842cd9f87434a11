// SPDX-License-Identifier: Apache-2.0
#include "harness/run/gpu_backend.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "harness/run/gpu_machine.hpp"
#include "harness/run/nccl_ranks.hpp"
#include "harness/run/rank_threads.hpp"
#include "optimized/comm/local/local_world.hpp"
#ifdef SP_EMULATOR
#include "harness/emulator/emulator.hpp"
#endif

namespace sp::SP_GPU {
namespace {

// On devices after a run: nothing, the worlds that are kept, or what a failed rank had.
enum class Left { kNothing, kWorlds, kAnything };

#ifdef SP_EMULATOR
constexpr const char* kName = "emulated";
constexpr bool kEmulated = true;
constexpr std::int64_t kLongest = 130;  // it executes every thread of a kernel one after the other
constexpr int kMostLocal = 8;           // a device has 63 streams, a rank up to seven
constexpr int kRanksPerDevice = 2;      // so that copies stay on a device and leave it

// The first fault since the last call. Devices on which anything may be left are as new; those on
// which nothing should be are looked at.
std::string clean_up(int devices, Left left) {
  const bool failed = left == Left::kAnything;
  for (int device = 0; failed && device < devices; ++device) {
    cudaSetDevice(device);
    cudaDeviceReset();
  }
  if (failed) emulator::take_leaks();  // a failed rank may leave what it had
  std::string found = emulator::take_fault().what;
  for (int device = 0; left == Left::kNothing && device < devices; ++device) {
    const emulator::Objects objects = emulator::live_objects(device);
    if (objects.total() == 0) continue;
    found += fmt::format("device {} still has {} streams, {} events, {} allocations", device,
                         objects.streams, objects.events, objects.allocations);
    break;
  }
  return found.empty() ? found : "the emulator found: " + found;
}
#else
constexpr const char* kName = "cuda";
constexpr bool kEmulated = false;
constexpr std::int64_t kLongest = 5000;
constexpr int kMostLocal = kMostLocalRanks;
constexpr int kRanksPerDevice = 1;
std::string clean_up(int, Left) { return {}; }
#endif

void report(const std::string& fault) {
  if (!fault.empty()) throw Error(ErrorKind::kInternal, fault);
}

// Errors of kernels stay with a device until its process ends. Asked by a thread of its own: the
// caller's device stays, and the emulator does not take the caller for one that may yet help.
bool devices_work(int devices) {
  bool work = true;
  std::jthread([&] {
    for (int device = 0; work && device < devices; ++device)
      work = cudaSetDevice(device) == cudaSuccess && cudaDeviceSynchronize() == cudaSuccess;
  }).join();
  return work;
}

class GpuBackend final : public Backend {
 public:
  GpuBackend(std::chrono::milliseconds time_limit, Transport transport, Worlds worlds)
      : time_limit_(time_limit), transport_(transport), keeps_worlds_(worlds == Worlds::kKept) {}
  const char* name() const override { return kName; }
  int most_ranks() const override {
    if (transport_ == Transport::kLocal) return kMostLocal;
    return transport_ == Transport::kNccl ? device_count() : std::max(device_count(), kMostLocal);
  }
  Operands operands() const override { return Operands::kStorage; }
  bool knows_f64() const override { return false; }
  std::int64_t longest() const override { return kLongest; }
  int devices(int ranks) const override {
    if (!is_local(ranks)) return ranks;
    return std::min((ranks + kRanksPerDevice - 1) / kRanksPerDevice, device_count());
  }
  void run(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) override;
  bool survives_failure() const override { return !broken_; }
  // The emulator's memory is the host's.
  bool can_be_watched() const override { return kEmulated; }
  bool leads() const override { return true; }
  bool agree(bool leaders_verdict) override { return leaders_verdict; }

 private:
  bool is_local(int ranks) const {
    return transport_ == Transport::kLocal ||
           (transport_ == Transport::kAuto && ranks > device_count());
  }
  void run_over_nccl(int ranks, const Rig& rig, const std::function<void(Machine&)>& body);
  void run_locally(int ranks, const Rig& rig, const std::function<void(Machine&)>& body);

  std::chrono::milliseconds time_limit_;
  Transport transport_;
  bool keeps_worlds_;
  std::map<int, std::unique_ptr<NcclRanks>> worlds_;  // by ranks
  bool broken_ = false;
};

void GpuBackend::run(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) {
  check_rig(rig);
  if (ranks > most_ranks()) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{} ranks are too many: {}; allowed: 1..{}", ranks,
                            transport_ == Transport::kNccl ? "over NCCL each needs a GPU"
                                                           : "they share one process",
                            most_ranks()));
  }
  is_local(ranks) ? run_locally(ranks, rig, body) : run_over_nccl(ranks, rig, body);
}

void GpuBackend::run_over_nccl(int ranks, const Rig& rig,
                               const std::function<void(Machine&)>& body) {
  auto& world = worlds_[ranks];
  if (world == nullptr) world = std::make_unique<NcclRanks>(ranks, time_limit_);
  world->run(rig, body);
  const bool failed = world->failures().any();
  if (!failed && keeps_worlds_) return report(clean_up(ranks, Left::kWorlds));
  const std::unique_ptr<NcclRanks> ended = std::move(world);
  ended->leave();
  if (failed) worlds_.clear();  // of the same devices
  const std::string fault = clean_up(ranks, failed ? Left::kAnything : Left::kNothing);
  broken_ = broken_ || (failed && !devices_work(ranks));
  if (failed) ended->failures().rethrow(fault.empty() ? "" : "\n" + fault);
  report(fault);
}

void GpuBackend::run_locally(int ranks, const Rig& rig, const std::function<void(Machine&)>& body) {
  const int devices = this->devices(ranks);
  check_reach(devices);
  LocalWorld world(ranks, time_limit_);
  const auto run_rank = [&](int rank) {
    try {
      Gpu gpu(rank % devices, devices);
      const GpuWorld joined = world.join(gpu, rank, std::make_shared<Traffic>());
      try {
        run_on_gpu(gpu, *joined.comm, *joined.meter, rig, body);
        world.finish(rank);
      } catch (...) {
        world.fail(rank, std::current_exception());  // before its end makes others fail
      }
    } catch (...) {
      world.fail(rank, std::current_exception());
    }
  };
  run_on_threads(ranks, run_rank, [&](int first) { world.fail(first, std::current_exception()); });
  try {
    world.rethrow_failure();
  } catch (const Error& error) {
    const std::string fault = clean_up(devices, Left::kAnything);
    broken_ = broken_ || !devices_work(devices);
    throw Error(error.kind(), fault.empty() ? error.what() : error.what() + ("\n" + fault));
  }
  report(clean_up(devices, Left::kNothing));
}

}  // namespace

std::unique_ptr<Backend> make_backend(std::chrono::milliseconds time_limit, Transport transport,
                                      Worlds worlds) {
  if (device_count() == 0) refuse_without_gpu();
  return std::make_unique<GpuBackend>(time_limit, transport, worlds);
}

std::vector<std::pair<std::string, std::string>> describe_gpus() {
  const auto version = [](int number) {  // 13000 is 13.0
    return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
  };
  const int devices = device_count();  // before all other calls
  std::vector<std::pair<std::string, std::string>> entries;
  int runtime = 0, driver = 0, nccl = 0;
  if (cudaRuntimeGetVersion(&runtime) == cudaSuccess)
    entries.emplace_back("cuda_runtime", version(runtime));
  if (cudaDriverGetVersion(&driver) == cudaSuccess)
    entries.emplace_back("cuda_driver", driver == 0 ? "none" : version(driver));
  if (ncclGetVersion(&nccl) == ncclSuccess)
    entries.emplace_back("nccl",
                         fmt::format("{}.{}.{}", nccl / 10000, nccl % 10000 / 100, nccl % 100));
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
