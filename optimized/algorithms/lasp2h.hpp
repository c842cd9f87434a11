// LASP-2H: stacks of linear and softmax layers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kLasp2h;

}  // namespace sp
