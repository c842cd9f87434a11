// A GPU for the kernel tests: values go to its memory and come back, its kernels run on them.
//
// Fresh dense tensors are not initialised: the emulator finds who reads them. Windows lie in tensors
// of NaN, which must still be there in the end. With --gtest_repeat=2 every kernel runs twice on equal
// operands, and what the host took must be the same to the last bit.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/cuda_memory.hpp"
#include "optimized/kernels/cuda/gpu.hpp"
#include "tests/unit/kernels_fixture.hpp"

namespace sp::test {

// Member of a test. Its end checks that no tensor was left broken and no fault unseen.
class GpuFixture {
 public:
  GpuFixture() : gpu_(0), memory_(gpu_), kernels_(gpu_) {}
  ~GpuFixture();

  SP_GPU::Gpu& gpu() { return gpu_; }
  SP_GPU::CudaMemory& memory() { return memory_; }
  SP_GPU::CudaKernels& kernels() { return kernels_; }

  Tensor poisoned(Tensor::Extents shape, DType dtype, Placement placement = Placement::kDense);
  Tensor put(const Values& values, DType dtype, Placement placement = Placement::kDense);
  Tensor put_ids(std::int64_t B, std::int64_t N, const std::vector<std::int32_t>& ids);
  Values take(const Tensor& tensor);  // waits for the kernels

  // The twin of a tensor in host memory, value by value; undefined remains undefined.
  Tensor twin(const Tensor& host, Placement placement = Placement::kDense);

 private:
  using Bytes = std::vector<std::byte>;
  // From the first to the last element of a tensor, with what lies between.
  Bytes download_span(const Tensor& tensor);
  void upload_span(const Tensor& tensor, const Bytes& bytes);
  void expect_untouched_around(const Tensor& whole, const Tensor& window);
  void expect_bits_of_last_time() const;

  SP_GPU::Gpu gpu_;
  SP_GPU::CudaMemory memory_;
  SP_GPU::CudaKernels kernels_;
  std::vector<std::pair<Tensor, Tensor>> windows_;  // whole, window
  std::vector<std::size_t> taken_;                  // digests
};

}  // namespace sp::test
