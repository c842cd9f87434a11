// One entry for every family: the reference result of a problem.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/problem/problem.hpp"

namespace sp::reference {

Outputs evaluate(const Problem& problem, const Inputs& inputs);

}  // namespace sp::reference
