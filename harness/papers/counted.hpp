// What algorithms cost: the numbers that replays call counted. Bytes, messages and flops are those
// of cost(), memory that of a dry run; tests hold every run to exactly these.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "harness/run/meter.hpp"

namespace sp {

struct Counted {
  Measured most;   // largest over ranks, each number by itself
  Measured total;  // sum over ranks
};
// Throws Error(kUsage) for an unknown algorithm or a problem that it refuses.
Counted count(const std::string& algorithm, const Problem& problem, const World& world);

Problem softmax_problem(const Shape& shape, DType dtype, bool causal);
Problem linear_problem(Module module, const Shape& shape, DType dtype);  // causal

// Causal attention in a ring whose ranks wait for each other at every step: the work of the busiest
// rank, summed over the steps, in whole blocks of pairs. The limit of long blocks, in which a
// diagonal has no width; evenly shared work would take ranks / 2.
double lockstep_blocks(Sharding sharding, int ranks);

}  // namespace sp
