// One rank's GPU: its compute stream, its limits, its errors as Error, launches by name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

#include <chrono>
#include <functional>
#include <new>
#include <string>
#include <unordered_set>
#include <utility>

#ifndef SP_GPU
#error "SP_GPU names the namespace of device code: cuda or emulated"
#endif

namespace sp::SP_GPU {

// Throws Error(kEnvironment) that names what failed; cudaSuccess passes.
void check(cudaError_t status, const char* what);

// A device has no more memory: like a host's, but says of which there is how much.
class OutOfDeviceMemory final : public std::bad_alloc {
 public:
  explicit OutOfDeviceMemory(std::string what) : what_(std::move(what)) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

// Devices that this process sees; 0 without a driver. Comes before all other calls of CUDA.
int device_count();
// Whether a device can touch the memory of another one.
bool reaches(int device, int other);

// Short waits are spun through, long ones leave the core to others.
class Patience {
 public:
  void pause();

 private:
  int pauses_ = 0;
};

// Belongs to the thread of its rank, whose current device it is.
class Gpu {
 public:
  // Makes it current. Those of the first `devices` GPUs that can reach its memory may: messages come
  // and go by copies of theirs, or NCCL's kernels on them touch it. Throws Error(kEnvironment).
  explicit Gpu(int ordinal, int devices = 1);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  // The GPU now belongs to this thread.
  void make_current() const;

  int ordinal() const { return ordinal_; }
  cudaStream_t compute() const { return compute_; }
  const cudaDeviceProp& properties() const { return properties_; }
  // Largest dynamic shared memory that a block may ask for, in bytes.
  int shared_memory_limit() const { return static_cast<int>(properties_.sharedMemPerBlockOptin); }

  // Lets the kernel have all the dynamic shared memory there is; asks the driver once. All ranks of a
  // device say the same, so that none takes from another what it was about to use.
  void allow_shared_memory(const void* kernel, const char* name) const;

  // Until all work of the compute stream is done. Asks the watcher, if there is one, again and
  // again: it throws when peers have failed or time is up.
  void synchronize() const;
  void set_watcher(std::function<void()> watcher) { watcher_ = std::move(watcher); }

  // Stream-ordered memory on the compute stream; zero bytes give null. Throws OutOfDeviceMemory, after
  // which the device goes on.
  std::byte* allocate(std::int64_t bytes) const;
  void release(std::byte* address) const noexcept;

 private:
  [[noreturn]] void throw_out_of_memory(std::int64_t wanted) const;

  int ordinal_;
  cudaStream_t compute_ = nullptr;
  cudaEvent_t done_ = nullptr;  // of synchronize()
  cudaDeviceProp properties_{};
  mutable std::unordered_set<const void*> allowed_;
  std::function<void()> watcher_;
};

// Scratch of one kernel call: freed in stream order, so a later kernel may get the same bytes.
class Scratch {
 public:
  Scratch(const Gpu& gpu, std::int64_t bytes) : gpu_(gpu), address_(gpu.allocate(bytes)) {}
  ~Scratch() { gpu_.release(address_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(address_);
  }

 private:
  const Gpu& gpu_;
  std::byte* address_;
};

struct Launch {
  dim3 grid;  // a grid without blocks launches nothing
  int threads = 0;
  int shared_bytes = 0;
};
// Throws Error(kUsage) for more blocks in y or z than there can be.
void check_grid(const dim3& grid, const char* name);

// The kernel's name marks its range for profilers.
template <class... Parameters, class... Arguments>
void launch(const Gpu& gpu, const char* name, void (*kernel)(Parameters...), const Launch& shape,
            Arguments&&... arguments) {
  constexpr int kWithoutAsking = 48 * 1024;
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  check_grid(shape.grid, name);
  if (shape.shared_bytes > kWithoutAsking)
    gpu.allow_shared_memory(reinterpret_cast<const void*>(kernel), name);
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads), 1, 1);
  config.dynamicSmemBytes = static_cast<std::size_t>(shape.shared_bytes);
  config.stream = gpu.compute();
  nvtxRangePushA(name);
  const cudaError_t status =
      cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  nvtxRangePop();
  check(status, name);
}

}  // namespace sp::SP_GPU
