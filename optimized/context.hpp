// Context: all that an algorithm may touch. What stands behind it decides on which machine the
// algorithm runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/comm/communicator.hpp"
#include "optimized/kernels/kernels.hpp"
#include "optimized/memory.hpp"

namespace sp {

struct Context {
  Communicator& comm;
  Kernels& kernels;
  Memory& memory;
  int node_size = 1;  // consecutive ranks per node; divides comm.size()
  int splits = 1;     // pieces that a state travels in, for algorithms that cut it
};

}  // namespace sp
