// Attention on tensor cores: for bf16 and f16 operands with head sizes up to 128.
//
// Scores, softmax and sums are f32. Rounded to the storage type, once each, are the probabilities
// and the gradients of the scores, where they become operands of the next product; nothing else is.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/views.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp::SP_GPU {

bool attention_mma_serves(const AttentionBlock& block);

// As Kernels::attention and Kernels::attention_backward: result.out is f32 or of storage type,
// log-sum-exp, delta and gradients are f32.
void attention_mma_forward(const Gpu& gpu, TokenTables& tables, const AttentionBlock& block,
                           const Partial& result);
void attention_mma_backward(const Gpu& gpu, TokenTables& tables, const AttentionBlock& block,
                            const Tensor& d_out, const Tensor& lse, const Tensor& delta,
                            const AttentionGradients& gradients);

}  // namespace sp::SP_GPU
