// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/gpu.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <limits>
#include <thread>

#include "reference/problem/error.hpp"

namespace sp::SP_GPU {
namespace {

// Short waits are spun through, long ones leave the core to others. A poll costs about 1 us.
class Patience {
 public:
  void pause() {
    constexpr int kSpins = 200;
    if (++pauses_ < kSpins) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }

 private:
  int pauses_ = 0;
};

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(ErrorKind::kEnvironment, fmt::format("{}: {}", what, cudaGetErrorString(status)));
}

int device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

Gpu::Gpu(int ordinal) : ordinal_(ordinal) {
  check(cudaSetDevice(ordinal), "cudaSetDevice");
  check(cudaGetDeviceProperties(&properties_, ordinal), "cudaGetDeviceProperties");
  // Freed memory stays in the pool: giving it back to the driver would synchronise the device.
  cudaMemPool_t pool = nullptr;
  std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
  check(cudaDeviceGetDefaultMemPool(&pool, ordinal), "cudaDeviceGetDefaultMemPool");
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
        "cudaMemPoolSetAttribute");
  check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  const cudaError_t status = cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking);
  if (status != cudaSuccess) cudaEventDestroy(done_);  // no destructor after a failed constructor
  check(status, "cudaStreamCreateWithFlags");
}

Gpu::~Gpu() {
  cudaStreamSynchronize(compute_);
  cudaEventDestroy(done_);
  cudaStreamDestroy(compute_);
}

void Gpu::synchronize() const {
  check(cudaEventRecord(done_, compute_), "cudaEventRecord");
  if (!watcher_) return check(cudaEventSynchronize(done_), "waiting for the GPU");
  cudaError_t status;
  for (Patience patience; (status = cudaEventQuery(done_)) == cudaErrorNotReady; patience.pause())
    watcher_();
  check(status, "waiting for the GPU");
}

std::byte* Gpu::allocate(std::int64_t bytes) const {
  if (bytes == 0) return nullptr;
  void* address = nullptr;
  check(cudaMallocAsync(&address, static_cast<std::size_t>(bytes), compute_), "cudaMallocAsync");
  return static_cast<std::byte*>(address);
}

void Gpu::release(std::byte* address) const noexcept {
  if (address != nullptr) cudaFreeAsync(address, compute_);
}

}  // namespace sp::SP_GPU
