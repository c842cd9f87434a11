// Rounding errors of Based and Rebased, carried through every step to first order.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/problem/problem.hpp"

namespace sp {

// The part of linear_terms() for modules with a feature map and a normaliser: errors in units of w.
Outputs normalised_sizes(const Problem& problem, const Inputs& inputs, const Outputs& exact);

}  // namespace sp
