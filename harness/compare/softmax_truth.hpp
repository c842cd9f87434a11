// The truth about softmax attention in double, and how far rounding moves it: the fast, blocked and threaded side of every
// verdict. limits.hpp says what is made of the sizes.
//
// size of an element   What independent roundings of the accumulator type, where an implementation has to make them, add up
// to: a standard deviation rather than a bound. Roundings of one pair, one query or one key count as independent of those
// of another and add by squares; what one rounding moves as a whole (the log-sum-exp of a query, its delta) moves it as a
// whole here.
//
//   w, u        unit roundoff of the accumulator, of storage
//   range(x)    largest minus smallest partial sum of x in the order of tokens: what is rounded when sums are stored, and
//               what a part of them amounts to
//   walk(x)^2   w^2 / 3 times the sum of the squares of all partial sums of x, one after every term: a rounding of a sum is
//               evenly spread up to w times the sum
//   score       e = w (|scale| |q| |k| + (1 + sqrt(D / 3)) |s| + |lse| + 2): products, their sum, exponent, exponential
//   lse         m = w (1 + |lse| + sqrt(n) / 3), n the keys of the query; l^2 = m^2 + sum p^2 e^2: common to a query
//   out         sum p^2 e^2 (v^2 + out^2) + walk(out)^2 + (m^2 + w^2) range(out)^2
//   d_p         g = w |d_out| |v|
//   delta       D^2 = sum d_out^2 (size(out)^2 + u^2 (out^2 + range(out)^2 + sum p^2 v^2)) + (w |d_out| |out|)^2, common to
//               a query: delta is taken from an out that was rounded once, or once more in parts
//   d_score     scale^2 p^2 (g^2 + (d_p - delta)^2 e^2) =: S
//   d_q         sum S k^2 + walk(d_q)^2 + (l^2 + w^2) range(d_q)^2 + D^2 (scale sum p k)^2
//   d_k         sum (S + scale^2 p^2 ((d_p - delta)^2 l^2 + D^2)) q^2 + walk(d_k)^2 + w^2 range(d_k)^2
//   d_v         sum p^2 (e^2 + l^2) d_out^2 + walk(d_v)^2 + w^2 range(d_v)^2
// Where inputs are alike, all of that times likeness() (likeness.hpp).
// Partial sums are looked at every 128 tokens; between them they stray by the terms, for which e^2 grows by 128 w^2 / 6.
// With Operands::kStorage also (3 u / 8)^2 of every p^2 and d_score^2, and (3 u / 16)^2 of range^2 for what equal ones have
// in common, where p and d_score count no smaller than the smallest normal number of storage.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "reference/problem/problem.hpp"

namespace sp {

// How the kernels under test multiply probabilities and score gradients: in the accumulator type, or rounded to the
// storage type first, as tensor cores take them (FlashAttention-2).
enum class Operands : std::uint8_t { kAccumulator, kStorage };

struct SoftmaxTruth {
  Outputs exact;  // f64; rows of the tokens that were asked for, as attention_rows() has them
  Outputs sizes;  // like exact
  // What one more rounding to storage of partial results adds to the size of out, as an independent part: u times the root
  // of range(out)^2 + sum p^2 v^2, since parts of a single key are worth their terms.
  HostTensor partial;
};

// Softmax attention without a projection. tokens: in ascending order; whose rows are wanted.
SoftmaxTruth softmax_truth(const Problem& problem, const Inputs& inputs,
                           std::span<const std::int64_t> tokens, Operands operands);
// All rows, of projected problems too.
SoftmaxTruth softmax_truth(const Problem& problem, const Inputs& inputs, Operands operands);

}  // namespace sp
