// How far the results of a hybrid stack may move when each of its layers keeps its own limit.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/compare/naive.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

// The largest change of every result over a few runs of the double reference, layer by layer, in
// which every element of every layer's results is moved up or down by that layer's own limit, and
// what layers pass on is rounded to storage. One element per tensor. `exact` is the reference of
// the same problem.
Outputs stack_noise(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                    Operands operands = Operands::kAccumulator);

}  // namespace sp
