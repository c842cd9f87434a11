// Kernel launches, and what a GPU of the named model has for them.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "harness/emulator/hosts.hpp"
#include "harness/emulator/nvtx.hpp"
#include "harness/emulator/streams.hpp"

namespace sp::emulator {
namespace {

using Lock = std::unique_lock<std::mutex>;

constexpr int kThreadsPerBlock = 1024;
constexpr int kWarp = 32;
constexpr int kRegistersPerThread = 255;
constexpr int kWithoutAsking = 48 * 1024;  // bytes of dynamic shared memory
constexpr int kReservedShared = 1024;      // per block, since compute capability 8.0
constexpr int kRegisterUnit = 256;         // per warp
constexpr int kSchedulers = 4;             // warps of a processor are dealt to them

class KernelOperation final : public StreamOperation {
 public:
  explicit KernelOperation(KernelLaunch launch) : launch_(std::move(launch)) {}
  bool advance(const Accessor& who) override {
    launch_.who = who;
    const KernelInHand in_hand(launch_.name);
    run_kernel(launch_);
    return true;
  }
  std::string describe() const override { return "kernel " + launch_.name; }

 private:
  KernelLaunch launch_;
};

int round_up(int value, int unit) { return (value + unit - 1) / unit * unit; }

int warps(int threads) { return (threads + kWarp - 1) / kWarp; }

// Warps of a kernel for which a processor has registers.
int warps_for_registers(int registers) {
  const int per_warp = round_up(registers * kWarp, kRegisterUnit);
  return model().registers_per_processor / kSchedulers / per_warp * kSchedulers;
}

// The kernel's record, with its name where a range says it.
KernelRecord& record_of(Device& own, const void* kernel) {
  KernelRecord& record = own.kernels[kernel];
  if (!nvtx_range().empty()) record.name = nvtx_range();
  return record;
}

[[noreturn]] void refuse(cudaError_t error, const std::string& what) {
  throw ApiError(error, what, FaultKind::kResources);
}

void check_launch(const cudaLaunchConfig_t& c, const KernelRecord& record) {
  const GpuModel& gpu = model();
  const std::string name = record.name.empty() ? "a kernel without a name" : record.name;
  if (c.numAttrs != 0) {
    throw ApiError(cudaErrorNotSupported, name + ": launch attributes are not modelled");
  }
  const std::uint64_t threads = std::uint64_t{c.blockDim.x} * c.blockDim.y * c.blockDim.z;
  if (threads == 0 || threads > kThreadsPerBlock || c.blockDim.z > 64) {
    refuse(cudaErrorInvalidConfiguration,
           fmt::format("{}: blocks of {} x {} x {} threads, limit {}", name, c.blockDim.x,
                       c.blockDim.y, c.blockDim.z, kThreadsPerBlock));
  }
  if (c.gridDim.x == 0 || c.gridDim.y == 0 || c.gridDim.z == 0 || c.gridDim.x > 2147483647u ||
      c.gridDim.y > 65535 || c.gridDim.z > 65535) {
    refuse(cudaErrorInvalidConfiguration,
           fmt::format("{}: a grid of {} x {} x {} blocks, limits 2147483647 x 65535 x 65535, "
                       "least 1",
                       name, c.gridDim.x, c.gridDim.y, c.gridDim.z));
  }
  if (c.dynamicSmemBytes > static_cast<std::size_t>(record.dynamic_shared_limit)) {
    refuse(cudaErrorInvalidConfiguration,
           fmt::format("{}: {} bytes of dynamic shared memory, but {} were asked for with "
                       "cudaFuncSetAttribute ({} has {})",
                       name, c.dynamicSmemBytes, record.dynamic_shared_limit, gpu.name,
                       gpu.shared_per_block));
  }
  const int registers = declared_registers(record.name);
  const int block_warps = warps(static_cast<int>(threads));
  if (registers > 0 && warps_for_registers(registers) < block_warps) {
    refuse(cudaErrorLaunchOutOfResources,
           fmt::format("{}: {} registers for each of {} threads, {} has {}", name, registers,
                       threads, gpu.name, gpu.registers_per_processor));
  }
}

// What is loaded when it is first asked for may wait for all that the device has to do. Orders
// nothing: it need not wait.
cudaError_t load(Device& own, Lock& lock, const void* kernel) {
  if (!own.loads_lazily() || std::exchange(own.kernels[kernel].loaded, true)) return cudaSuccess;
  return run_until(own, lock, own.everything());
}

}  // namespace

cudaError_t launch_kernel(const cudaLaunchConfig_t& config, const void* kernel,
                          std::function<void()> body) {
  return on_device("cudaLaunchKernelEx", [&](Device& own, Lock& lock) {
    if (const cudaError_t error = load(own, lock, kernel)) return error;
    Stream& stream = stream_of(own, config.stream);
    const KernelRecord& record = record_of(own, kernel);
    check_launch(config, record);
    KernelLaunch launch;
    launch.name = record.name.empty() ? "without a name" : record.name;
    launch.grid = config.gridDim;
    launch.block = config.blockDim;
    launch.shared_bytes = config.dynamicSmemBytes;
    launch.body = std::move(body);
    launch.model = &model();
    launch.seed = own.random();
    own.post(stream, std::make_unique<KernelOperation>(std::move(launch)));
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return on_device("cudaFuncSetAttribute", [&](Device& own, Lock& lock) {
    if (const cudaError_t error = load(own, lock, kernel)) return error;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
      throw ApiError(cudaErrorInvalidValue, "attribute is not modelled");
    }
    KernelRecord& record = record_of(own, kernel);
    if (value < 0 || value > model().shared_per_block) {
      refuse(cudaErrorInvalidValue,
             fmt::format("{}: {} bytes of dynamic shared memory per block, {} has {}", record.name,
                         value, model().name, model().shared_per_block));
    }
    record.dynamic_shared_limit = std::max(value, kWithoutAsking);
    return cudaSuccess;
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  return on_device("cudaFuncGetAttributes", [&](Device& own, Lock& lock) {
    if (const cudaError_t error = load(own, lock, kernel)) return error;
    const KernelRecord& record = record_of(own, kernel);
    *attributes = {};
    attributes->maxThreadsPerBlock = kThreadsPerBlock;
    attributes->numRegs = declared_registers(record.name);
    attributes->maxDynamicSharedSizeBytes = record.dynamic_shared_limit;
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int threads, std::size_t shared_bytes) {
  return on_device("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&](Device& own, Lock& lock) {
    if (const cudaError_t error = load(own, lock, kernel)) return error;
    if (threads <= 0 || threads > kThreadsPerBlock) {
      throw ApiError(cudaErrorInvalidValue, fmt::format("blocks of {} threads", threads));
    }
    const GpuModel& gpu = model();
    const int block_warps = warps(threads);
    int fit = std::min(gpu.blocks_per_processor, gpu.threads_per_processor / kWarp / block_warps);
    const auto block_shared = shared_bytes + kReservedShared;
    fit = static_cast<int>(
        std::min<std::size_t>(static_cast<std::size_t>(fit),
                              static_cast<std::size_t>(gpu.shared_per_processor) / block_shared));
    const int registers = declared_registers(record_of(own, kernel).name);
    if (registers > kRegistersPerThread) {
      fit = 0;
    } else if (registers > 0) {
      fit = std::min(fit, warps_for_registers(registers) / block_warps);
    }
    *blocks = fit;
    return cudaSuccess;
  });
}

}  // namespace sp::emulator
