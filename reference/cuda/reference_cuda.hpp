// The definitions as plain CUDA kernels: one kernel per equation, one thread per element.
//
// A third source, beside the reference on the CPU and the optimized kernels: it shares the problem's
// vocabulary with both and nothing else. Written to be read; memory is that of one head's N x N
// matrices (softmax) or N states (linear attention).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/problem/problem.hpp"

#ifndef SP_GPU
#error "SP_GPU names the namespace of device code: cuda or emulated"
#endif

namespace sp::SP_GPU::reference {

// On the calling thread's current device. Inputs are converted to `arithmetic` (f32 or f64), in
// which everything is computed and returned; gradients when inputs.d_out is present. Throw
// Error(kEnvironment) when the device fails.
Outputs attention(const Problem& problem, const Inputs& inputs, DType arithmetic);
Outputs linear_attention(const Problem& problem, const Inputs& inputs, DType arithmetic);

}  // namespace sp::SP_GPU::reference
