// The number of the document at each position: equal ids with another id between are two documents.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/mask.cuh"

namespace sp::SP_GPU {

// A mask whose ids are those numbers, in scratch that lives as long as this.
class DocumentMask {
 public:
  // Segments of the mask, or else of the terms.
  DocumentMask(const Gpu& gpu, const MaskTerms& mask, const LinearTerms& terms);
  const Mask& mask() const { return mask_; }

 private:
  const Scratch numbers_;  // [B, N] i32
  Mask mask_;
};

}  // namespace sp::SP_GPU
