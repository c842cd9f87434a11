// Ring attention applied to linear attention, without and with the right product.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kRingLinear;
extern const Algorithm kRingLinearRight;

}  // namespace sp
