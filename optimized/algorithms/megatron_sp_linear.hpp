// Megatron sequence parallelism for linear attention.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kMegatronSpLinear;

}  // namespace sp
