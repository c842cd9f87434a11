// Records one run of an algorithm on a real back-end: a timeline to look at, not a measurement.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "harness/generate/cases.hpp"
#include "harness/trace/timeline.hpp"
#include "optimized/algorithms/algorithm.hpp"

namespace sp {

// One forward and, with d_out among the inputs, one backward pass, after a repetition that is not
// recorded. Collective over the back-end; only the leading process gets the spans, of all ranks.
// Throws Error(kUsage) for other back-ends than thread and mpi, where the host's clock tells nothing,
// and Error(kEnvironment) for ranks on several hosts, whose clocks differ.
std::vector<Span> record_run(Backend& backend, const Algorithm& algorithm, const Case& drawn,
                             const Inputs& inputs);

}  // namespace sp
