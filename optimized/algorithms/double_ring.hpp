// LoongTrain's double ring; see double_ring.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kDoubleRing;

}  // namespace sp
