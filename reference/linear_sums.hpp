// Linear attention, the definition as sums over pairs of tokens: the witness of the recurrence.
//
// Nothing of linear_attention.hpp is used: weights come from the kernel functions of the modules
// instead of feature maps, decays from sums of logarithms between the two tokens of a pair.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/problem/problem.hpp"

namespace sp::reference {

// As linear_attention; O(N^2) time.
Outputs linear_sums(const Problem& problem, const Inputs& inputs);

}  // namespace sp::reference
