// One product of one warp on the tensor cores, to see how they add: a first look at a GPU.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/gpu.hpp"
#include "optimized/tensor.hpp"

namespace sp::SP_GPU {

// d = a b + c for a [16, 16] and b [16, 8] in bf16 or f16, c and d [16, 8] in f32; all contiguous.
void mma_once(const Gpu& gpu, const Tensor& d, const Tensor& a, const Tensor& b, const Tensor& c);

}  // namespace sp::SP_GPU
