// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/gpu.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <thread>

#include "reference/problem/error.hpp"

namespace sp::SP_GPU {
namespace {

// What CUDA and NCCL read from the environment before their first call; what the user has set stays.
void prepare_process() {
  // A kernel that is loaded when it is first launched may wait for the device, on which a kernel of
  // NCCL waits for a peer.
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  // Streams that share a queue of the device wait for each other: all that there can be.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  // Operations of several communicators start in the order of their calls, so that two ranks cannot
  // each run the one that the other has put off.
  setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
}

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw Error(ErrorKind::kEnvironment, fmt::format("{}: {}", what, cudaGetErrorString(status)));
}

void Patience::pause() {
  constexpr int kSpins = 200;  // a poll costs about 1 us
  if (++pauses_ < kSpins) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

void check_grid(const dim3& grid, const char* name) {
  constexpr unsigned kMost = 65535;
  if (grid.y <= kMost && grid.z <= kMost) return;
  throw Error(
      ErrorKind::kUsage,
      fmt::format("{} needs {} x {} x {} blocks of a GPU: heads and sequences are too many; "
                  "allowed: {} each",
                  name, grid.x, grid.y, grid.z, kMost));
}

int device_count() {
  [[maybe_unused]] static const bool prepared = (prepare_process(), true);
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

bool reaches(int device, int other) {
  int can = 0;
  check(cudaDeviceCanAccessPeer(&can, device, other), "cudaDeviceCanAccessPeer");
  return can != 0;
}

Gpu::Gpu(int ordinal, int devices) : ordinal_(ordinal) {
  make_current();
  check(cudaGetDeviceProperties(&properties_, ordinal), "cudaGetDeviceProperties");
  // Freed memory stays in the pool: giving it back to the driver would synchronise the device.
  cudaMemPool_t pool = nullptr;
  std::uint64_t keep = std::numeric_limits<std::uint64_t>::max();
  check(cudaDeviceGetDefaultMemPool(&pool, ordinal), "cudaDeviceGetDefaultMemPool");
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep),
        "cudaMemPoolSetAttribute");
  for (int other = 0; other < devices; ++other) {
    if (other == ordinal || !reaches(other, ordinal)) continue;
    cudaMemAccessDesc access{};
    access.location.type = cudaMemLocationTypeDevice;
    access.location.id = other;
    access.flags = cudaMemAccessFlagsProtReadWrite;
    check(cudaMemPoolSetAccess(pool, &access, 1), "cudaMemPoolSetAccess");
  }
  check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  const cudaError_t status = cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking);
  if (status != cudaSuccess) cudaEventDestroy(done_);  // no destructor after a failed constructor
  check(status, "cudaStreamCreateWithFlags");
}

void Gpu::make_current() const { check(cudaSetDevice(ordinal_), "cudaSetDevice"); }

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

void Gpu::allow_shared_memory(const void* kernel, const char* name) const {
  if (allowed_.contains(kernel)) return;
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, kernel), name);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             shared_memory_limit() - static_cast<int>(attributes.sharedSizeBytes)),
        name);
  allowed_.insert(kernel);
}

std::byte* Gpu::allocate(std::int64_t bytes) const {
  if (bytes == 0) return nullptr;
  void* address = nullptr;
  const cudaError_t status = cudaMallocAsync(&address, static_cast<std::size_t>(bytes), compute_);
  if (status == cudaErrorMemoryAllocation) throw_out_of_memory(bytes);
  check(status, "cudaMallocAsync");
  return static_cast<std::byte*>(address);
}

void Gpu::throw_out_of_memory(std::int64_t wanted) const {
  cudaGetLastError();  // does not stick
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  throw OutOfDeviceMemory(
      fmt::format("GPU {} has no memory for {} bytes more: {} of {} MiB are free", ordinal_, wanted,
                  free >> 20, total >> 20));
}

void Gpu::release(std::byte* address) const noexcept {
  if (address != nullptr) cudaFreeAsync(address, compute_);
}

}  // namespace sp::SP_GPU
