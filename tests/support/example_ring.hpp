// The template of optimized/README.md: the smallest complete algorithm, compiled and tested.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kExampleRing;

}  // namespace sp
