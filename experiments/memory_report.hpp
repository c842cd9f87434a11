// What the memory of the fullest rank consists of at its highest, by dry runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

// Lines that begin with '#'. The problem must be one that the algorithm supports.
std::string memory_text(const Algorithm& algorithm, const Problem& problem, const World& world,
                        bool backward);

}  // namespace sp
