// USP, Ulysses inside nodes and a ring between them; see usp.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kUspContiguous;
extern const Algorithm kUspZigzag;

}  // namespace sp
