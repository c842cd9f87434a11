// DeepSpeed-Ulysses; see ulysses.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kUlysses;

}  // namespace sp
