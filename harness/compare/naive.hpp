// The same attention in the precision of the machine, written naively: the yardstick for errors.
//
// An algorithm may lose at most a small multiple of what this loses against the double reference.
// Arithmetic is in the accumulator type (float, or double for f64 storage), and sums run plainly
// from left to right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "reference/problem/problem.hpp"

namespace sp {

// How the kernels under test multiply probabilities and score gradients: in the accumulator type,
// or rounded to the storage type first, as tensor cores take them (FlashAttention-2).
enum class Operands : std::uint8_t { kAccumulator, kStorage };

// out, lse and, when inputs.d_out is present, the gradients: f64 tensors that hold the accumulator
// values before the last rounding to storage. Backward sees out as a training step does, rounded.
// The sums say how strongly a change of every probability by a small factor moves the gradients.
struct NaiveOutputs : Outputs {
  double largest_key = 0, largest_value = 0;  // |k|, |v| as the queries meet them: projected, if so
  double d_scores_per_query = 0;              // largest sum over keys of |d_score|
  double d_scores_per_key = 0;                // largest sum over queries and heads of |d_score|
  double probability_per_key = 0;             // largest sum over queries and heads of p
  // With Operands::kStorage: the sums of |p v|, |d_score k|, |d_score q|, |p d_out| of every element,
  // with p and d_score no smaller than the smallest normal number, and d_score with what delta
  // moves by when out does. u times them bounds what rounding p and d_score does. Absent else, and for projected problems, whose scores stay in f32.
  Outputs sizes{};
};
NaiveOutputs naive_attention(const Problem& problem, const Inputs& inputs,
                             Operands operands = Operands::kAccumulator);

}  // namespace sp
