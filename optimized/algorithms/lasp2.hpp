// LASP-2: one all-gather of states per pass.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kLasp2;

}  // namespace sp
