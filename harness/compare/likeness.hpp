// Roundings of alike data are alike.
//
// Sizes add roundings up as if they were independent of each other. Where tokens repeat, or the channels of a token are all
// equal, they are not: m roundings that are the same add up to m, where independent ones add up to sqrt(m).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/problem/problem.hpp"

namespace sp {

// How many times larger sizes must be: sqrt(channels tokens), where
//   tokens    are those that are like a token, on average: same query and cotangent, or same key and value
//   channels  the same of channels of one size, in queries and keys both, or in cotangents and values both; below 2 it is
//             chance, of short types, and counts as 1
// Zeros are like nothing: they are not rounded. 1 for random inputs; sqrt(N) if all tokens are the same.
double likeness(const Inputs& inputs);

// The same where tokens that are like each other in one input alone round alike: sqrt of the most equals in any of them. The
// constant among the features of Based adds up values alone, its normaliser keys alone.
double likeness_of_each(const Inputs& inputs);

void multiply_sizes(Outputs& sizes, double factor);

}  // namespace sp
