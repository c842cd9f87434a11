// A meeting of all ranks: what timings start from.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/run/backend.hpp"

namespace sp {

// All ranks arrive before one leaves: a sum needs everybody's share.
inline void meet(Machine& machine) {
  const Tensor token = machine.memory.allocate(DType::kF32, {1, 1, 1, 1}, "meeting");
  const float one = 1;
  machine.memory.upload(token, &one);
  machine.comm.all_reduce(token, {"meeting", 0}).wait();
}

}  // namespace sp
