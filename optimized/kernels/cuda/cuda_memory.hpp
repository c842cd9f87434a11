// Device memory of one rank, allocated in stream order from the device's pool: no call waits for
// the device but upload, download and destruction.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/gpu.hpp"
#include "optimized/memory.hpp"

namespace sp::SP_GPU {

class CudaMemory final : public Memory {
 public:
  explicit CudaMemory(const Gpu& gpu) : gpu_(gpu) {}

  void upload(const Tensor& tensor, const void* host) override;
  // Waits for the compute stream; throws what Gpu::synchronize() throws.
  void download(void* host, const Tensor& tensor) const override;

 protected:
  std::byte* acquire(std::int64_t bytes, const char* name) override;
  void release(std::byte* data, std::int64_t bytes) noexcept override;

 private:
  const Gpu& gpu_;
};

}  // namespace sp::SP_GPU
