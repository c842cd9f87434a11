// Attention of CudaKernels: tensor cores where they serve the block, plain f32 arithmetic elsewhere.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/attention_mma.hpp"
#include "optimized/kernels/cuda/attention_plain.hpp"
#include "optimized/kernels/cuda/cuda_kernels.hpp"

namespace sp::SP_GPU {

void CudaKernels::do_attention(const AttentionBlock& block, const Partial& result) {
  SP_CHECK(result.lse.dtype() == DType::kF32, "log-sum-exp on a GPU holds f32");
  const auto attention =
      attention_mma_serves(block) ? attention_mma_forward : attention_plain_forward;
  attention(gpu_, tables_, block, result);
}

void CudaKernels::do_attention_backward(const AttentionBlock& block, const Tensor& d_out,
                                        const Tensor& lse, const Tensor& delta,
                                        const AttentionGradients& gradients) {
  SP_CHECK(lse.dtype() == DType::kF32 && delta.dtype() == DType::kF32,
           "log-sum-exp and delta on a GPU hold f32");
  const auto backward =
      attention_mma_serves(block) ? attention_mma_backward : attention_plain_backward;
  backward(gpu_, tables_, block, d_out, lse, delta, gradients);
}

}  // namespace sp::SP_GPU
