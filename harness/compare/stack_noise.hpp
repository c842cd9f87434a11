// How far the results of a hybrid stack move when each of its layers errs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/compare/softmax_truth.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

// The change of every result over a few runs of the double reference in which every element of every
// layer's results is moved up or down: by its last rounding to storage, and by a quarter of the rest
// of that layer's own limit. Squares are means over the runs, of the element and of its row.
// `exact` is the reference of the same problem.
Outputs stack_noise(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                    Operands operands = Operands::kAccumulator);

}  // namespace sp
