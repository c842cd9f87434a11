// How far rounding moves the results of linear attention without a normaliser: sizes, found by sweeps over the tokens that
// carry states, with no code of the kernels they judge. O(N D E) time per head, on all cores.
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
