// Times one algorithm on one problem, on any back-end, after it passed a correctness check.
//
// Repetition  All ranks meet, then each times its forward pass; they meet again, then each times
//             its backward pass. The time of a pass is that of the slowest rank. Memory for the
//             results is allocated inside, as in a real step; sharding the inputs is not timed.
// Check       A short problem of the same kind on the same ranks, forward and backward, as `verify`
//             does it. No time is told of an algorithm that fails it.
// Collective over the back-end; only the leading process gets times.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "harness/generate/cases.hpp"
#include "harness/results/bench_row.hpp"
#include "harness/run/backend.hpp"
#include "optimized/algorithms/algorithm.hpp"

namespace sp {

struct BenchOptions {
  int warmups = 1;  // repetitions before the first that counts
  int repetitions = 20;
  bool backward = true;
  Rig rig{};  // of the check and of the timed runs
};

// A row without results.
BenchRow empty_row(const Algorithm& algorithm, const std::string& backend, const Problem& problem,
                   int ranks);

// What one row needs of its problem; inputs are make_inputs(drawn).
BenchRow bench(Backend& backend, const Algorithm& algorithm, const Case& drawn,
               const Inputs& inputs, const BenchOptions& options);

// The problem that is checked instead: the same heads and mask, few tokens.
Case short_case(const Case& drawn);

}  // namespace sp
