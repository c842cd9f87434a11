// How far rounding can move the results of linear attention in the worst case, in units of w.
//
// Without a normaliser a result is a sum of products of inputs, and whatever the order of summation,
// chunks or ranks, its rounding error is at most a small multiple of w times the sum of the absolute
// values of its terms. Feature maps, layer norm and normaliser are not linear: there it is the error
// of every step, carried to the end to first order; an element whose denominator may vanish in
// rounding has one beyond all errors. O(N^2) time.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/problem/problem.hpp"

namespace sp {

// One per element of every result. `exact` is the double reference of the same problem.
Outputs linear_terms(const Problem& problem, const Inputs& inputs, const Outputs& exact);

}  // namespace sp
