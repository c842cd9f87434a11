// Host tensors that a communicator makes for itself: staging space, shadows, flat views, and
// their copies and sums.
//
// They are outside every Memory's ledger, because they exist only where data lives on the host.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "optimized/tensor.hpp"

namespace sp {

// Row-major, contents unspecified.
Tensor host_buffer(DType dtype, Tensor::Extents shape, const char* name);

// The elements of a contiguous tensor as [elements, 1, 1, 1], sharing its data and keeping it
// alive.
Tensor flat_view(const Tensor& tensor);

// Between contiguous tensors of equally many bytes, which may be one and the same.
void copy_bytes(const Tensor& target, const Tensor& source);

// target[i] = sources[0][i] + sources[1][i] + ..., always in this order; contiguous, f32 or f64. The
// target may be one of the sources.
void sum_in_order(const Tensor& target, const std::vector<Tensor>& sources);

}  // namespace sp
