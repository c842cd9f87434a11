// TokenRing and its hybrid with an outer key/value ring; see token_ring.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kTokenRingContiguous;
extern const Algorithm kTokenRingZigzag;
extern const Algorithm kTokenRingHybrid;

}  // namespace sp
