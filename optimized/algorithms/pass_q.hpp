// Pass-Q context parallelism; see pass_q.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kPassQ;

}  // namespace sp
