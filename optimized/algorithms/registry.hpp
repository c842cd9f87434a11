// All algorithms, in the order of the catalogue. An explicit list: nothing registers itself.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

std::span<const Algorithm* const> algorithms();
const Algorithm* find_algorithm(std::string_view id);  // null if there is none

}  // namespace sp
