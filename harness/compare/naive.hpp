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
// The sums say how strongly a change of every probability by a small factor moves the gradients.
struct NaiveOutputs : Outputs {
  double largest_key = 0, largest_value = 0;  // |k|, |v| as the queries meet them: projected, if so
  double d_scores_per_query = 0;              // largest sum over keys of |d_score|
  double d_scores_per_key = 0;                // largest sum over queries and heads of |d_score|
  double probability_per_key = 0;             // largest sum over queries and heads of p
};
NaiveOutputs naive_attention(const Problem& problem, const Inputs& inputs);

}  // namespace sp
