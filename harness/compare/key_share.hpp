// What some of the keys give to the results of queries: a part of a sum that an algorithm forms on its own.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "reference/problem/problem.hpp"

namespace sp {

struct KeyShare {
  std::vector<double> out, d_q;  // like those results; d_q empty without gradients
  std::vector<double> weight;    // of the keys' probabilities in all: [B, H, rows]
};

// Of the first `keys` keys in softmax attention without windows and documents; `exact` holds the rows of `tokens`, in order.
// Plain loops on all cores, O(rows keys).
KeyShare share_of_first_keys(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                             std::span<const std::int64_t> tokens, std::int64_t keys);

}  // namespace sp
