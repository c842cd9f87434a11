// Runs one algorithm on one problem: shards the inputs, runs forward and backward on all ranks,
// gathers on rank 0.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "harness/run/meter.hpp"
#include "optimized/algorithms/algorithm.hpp"

namespace sp {

struct Execution {
  Outputs outputs;  // in the storage type and global token order; lse in the accumulator type
  std::vector<Measured> ranks;  // what each rank was measured to do
};

// Backward runs when inputs.d_out is present. Collective over the back-end; only the leading
// process gets the result. Throws Error if a rank fails; refuses an impossible world with kUsage.
Execution execute(Backend& backend, const Rig& rig, const Algorithm& algorithm,
                  const Problem& problem, const Inputs& inputs, const World& world);

// ranks >= 1, at most what the back-end has, and divisible by ranks per node; throws Error(kUsage)
// otherwise.
void validate(const World& world, const Backend& backend);

}  // namespace sp
