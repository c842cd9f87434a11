// DistFlashAttn (LightSeq); see dist_flash.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kDistFlash;

}  // namespace sp
