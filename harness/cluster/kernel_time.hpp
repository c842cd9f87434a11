// How long a kernel runs on a simulated device.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "harness/cluster/platform.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp {

// launch + max(flops / (peak * efficiency), bytes / (bandwidth * share)), seconds; 0 for a kernel
// without flops and bytes. The shape comes from the tensors: for attention reads[0] is q
// [n, B, H, D] and reads[1] is k [m, B, G, D] (kernels.cpp charges them in that order).
double kernel_seconds(const Device& device, const Charge& charge, std::span<const Tensor> reads,
                      std::span<const Tensor> writes);

}  // namespace sp
