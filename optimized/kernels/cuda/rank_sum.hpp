// Sums over ranks whose tensors are on one device, or on devices that see each other.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "optimized/kernels/cuda/gpu.hpp"
#include "optimized/tensor.hpp"

namespace sp::SP_GPU {

// target[i] = sources[0][i] + sources[1][i] + ..., always in this order; contiguous, f32 or f64, up to
// 64 sources. The target may be one of them.
void sum_in_order(const Gpu& gpu, const Tensor& target, const std::vector<Tensor>& sources);

}  // namespace sp::SP_GPU
