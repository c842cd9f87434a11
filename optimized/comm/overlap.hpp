// Whether two windows into memory share a byte.
//
// Exact for strided windows, so that disjoint rows or columns of one storage never count as shared.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/tensor.hpp"

namespace sp {

// `message` is contiguous, `window` need not be. Tensors without data share nothing.
bool overlaps(const Tensor& window, const Tensor& message);

}  // namespace sp
