// Attention in f32 arithmetic, for every storage type and head size: what tensor cores do not serve.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/views.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp::SP_GPU {

void attention_plain_forward(const Gpu& gpu, TokenTables& tables, const AttentionBlock& block,
                             const Partial& result);

void attention_plain_backward(const Gpu& gpu, TokenTables& tables, const AttentionBlock& block,
                              const Tensor& d_out, const Tensor& lse, const Tensor& delta,
                              const AttentionGradients& gradients);

}  // namespace sp::SP_GPU
