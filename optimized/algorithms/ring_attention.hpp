// Ring Attention and its two fair controls; see ring_attention.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kRingContiguous;
extern const Algorithm kRingStriped;
extern const Algorithm kRingZigzag;
extern const Algorithm kRingBidirectionalZigzag;
extern const Algorithm kRingTwoChannelZigzag;

}  // namespace sp
