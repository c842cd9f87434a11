// How far rounding moves the results of linear attention without a normaliser: sizes of its elements, from sweeps over the
// tokens that carry states, with no code of the kernels they judge. O(N D E) time per head, on all cores.
//
// size of an element   What independent roundings of the accumulator type, where an implementation has to make them, add up
// to: a standard deviation, as in softmax_truth.hpp, in whatever order and by whichever product (states, or every pair) the
// sums are formed. In units of w, its unit roundoff. Letters are those of reference/README.md; c is a channel of keys, e of
// values, and d the decay of a channel from one token to the next. With every state S travel, element by element,
//
//   S = d S + k v^T
//   R = d^2 (R + 2 S^2) + S^2        every step stores a sum; where it decays, it is multiplied, by a factor that was rounded.
//                                    A rounding is evenly spread up to w S: 1/3 of the square. Queries of all heads of a
//                                    key may be added to one state: each then rounds the squares of all, so many times S^2
//   T0 = d^2 T0 + (k v)^2            products
//   T2 = sum l^2 d^2 (k v)^2         an exponent is off by w l, l the sum of the log decays between a key and its reader:
//   L  = sum l d k v                 each by itself, or all alike. With T1 = sum l d^2 (k v)^2 they are recurrences, too
//   M                                how many terms the slowest channel has not faded below w: a sum that takes terms from
//                                    the nearest to the farthest is as large as the result at each of them
//   H                                the highest state so far, column by column (for sums over c; of rows over e), as it has
//                                    decayed since; looked at every 32 tokens: a sum may end at 0 and still have been large
// out reads them by q over the channels c, d_q by d_out over e:
//
//   square = scale^2 [ |q|^2 sum_c T0 + sum_c q^2 (R + D S^2) / 3 + sum_c q^2 (T2 + L^2) + (sum_c q L)^2 ]
//   size^2 = square + M / 3 max(out^2, scale^2 (sum_c q H)^2, scale^2 a sum_c q^2 T0)
// The products of one score are worth |q| |k|, and so are its partial sums; D S^2 are those of a query with a state. The last
// term stands only where something decays: a sum may be formed in two parts, of near and far tokens, which cancel by chance
// and are as large as all terms together; without decay R says so. a is 1, or where all keys point to one side what the
// sum of out^2 over e is then larger than that of sum_c q^2 S^2.
//
// d_v and d_k read the state of queries and cotangents, q d_out^T, that travels back from later tokens, by k over c and by v
// over e. Unless causal, every result reads a state that comes the other way, too, without its own token; d_k and d_v are
// sums over the heads of a key besides. Squares and M of such parts add up, and in place of out^2 stands the larger of the
// square of the whole and the squares of the parts: parts may cancel.
//
//   d_log_decay   Of a token: the sum of |q| size(d_q) + |k| size(d_k) + |q d_q| + |k d_k| from it on to the end of its
//                 document: a sum, not squares, because one state errs in all of them. And the root of the sum of squares
//                 of q d_q - k d_k, summed up to each of these tokens. Per head, both summed over channels, and over tokens
// In f64 every decay but 1 adds 1 to l: the reference multiplies by rounded decays, token by token, and their errors all have
// one sign where a decay is one number. Other implementations need not drift (optimized/kernels/cpu/linear_decay.cpp).
//
// Where inputs are alike, all of that times likeness() (likeness.hpp).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "reference/problem/problem.hpp"

namespace sp {

// One size per element of `exact`, the double reference of the same problem.
Outputs linear_sizes(const Problem& problem, const Inputs& inputs, const Outputs& exact);
// exact: rows of `tokens`, which are in ascending order. Gradients of decays belong to all tokens.
Outputs linear_sizes(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                     std::span<const std::int64_t> tokens);

}  // namespace sp
