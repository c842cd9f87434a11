// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/cuda_memory.hpp"

namespace sp::SP_GPU {

// From pageable memory: the call returns when the host's bytes have been read. What comes before is
// waited for first, as in a download.
void CudaMemory::upload(const Tensor& tensor, const void* host) {
  SP_CHECK(tensor.contiguous(), "an upload needs a contiguous tensor");
  if (tensor.elements() == 0) return;
  gpu_.synchronize();
  check(cudaMemcpyAsync(tensor.data(), host, static_cast<std::size_t>(tensor.bytes()),
                        cudaMemcpyHostToDevice, gpu_.compute()),
        "cudaMemcpyAsync to the device");
}

void CudaMemory::download(void* host, const Tensor& tensor) const {
  SP_CHECK(tensor.contiguous(), "a download needs a contiguous tensor");
  if (tensor.elements() == 0) return;
  // What comes before is waited for first: a copy into pageable memory would block on it, and
  // nobody would watch.
  gpu_.synchronize();
  check(cudaMemcpyAsync(host, tensor.data(), static_cast<std::size_t>(tensor.bytes()),
                        cudaMemcpyDeviceToHost, gpu_.compute()),
        "cudaMemcpyAsync to the host");
  check(cudaStreamSynchronize(gpu_.compute()), "cudaMemcpyAsync to the host");
}

std::byte* CudaMemory::acquire(std::int64_t bytes, const char* /*name*/) {
  return gpu_.allocate(bytes);
}

void CudaMemory::release(std::byte* data, std::int64_t) noexcept { gpu_.release(data); }

}  // namespace sp::SP_GPU
