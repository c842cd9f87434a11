// Ring Self-Attention, its skipping variant and its Linformer variant; see rsa.cpp and
// rsa_linformer.cpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kRsa;
extern const Algorithm kRsaSkip;
extern const Algorithm kRsaLinformer;

}  // namespace sp
