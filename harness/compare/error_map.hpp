// Where a result is off, and by how much.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/compare/oracle.hpp"

namespace sp {

// The tensors that `result` holds, less what they should be, in f32; NaN at tokens that are not compared. Tensors that are
// not compared at all are absent.
Outputs error_map(const Oracle& oracle, const Outputs& result);

}  // namespace sp
