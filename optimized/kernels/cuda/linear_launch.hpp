// The steps that the forward kernels of linear attention are made of.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {

// sums = the output of every token from the tokens of its own tile.
void launch_intra(const Gpu& gpu, const LinearBlock& block, const MappedVectors& q,
                  const MappedVectors& k, const Tensor& sums);

// sums += the output from the tokens of earlier tiles and from the state `before`; after = the state
// at the end. With both undefined and sums too, nothing. q may be null where sums are undefined.
void launch_pass(const Gpu& gpu, const LinearBlock& block, const MappedVectors* q,
                 const MappedVectors& k, const Tensor& before, const Tensor& sums,
                 const Tensor& after);

}  // namespace sp::SP_GPU
