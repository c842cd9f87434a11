// The same attention in the precision of the machine, written naively: the yardstick for errors.
//
// An algorithm may lose at most a small multiple of what this loses against the double reference.
// Arithmetic is in the accumulator type (float, or double for f64 storage), and sums run plainly
// from left to right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/problem/problem.hpp"

namespace sp {

// out, lse and, when inputs.d_out is present, the gradients: f64 tensors that hold the accumulator
// values before the last rounding to storage. Backward sees out as a training step does, rounded.
Outputs naive_attention(const Problem& problem, const Inputs& inputs);

}  // namespace sp
