// LASP-1 and its modern peer: states pass along the chain of ranks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

extern const Algorithm kLasp1;          // as published
extern const Algorithm kLasp1Released;  // as released
extern const Algorithm kZeco;           // pipelined

}  // namespace sp
