// `seqpar reproduce quick`: a minute that shows what the whole does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "experiments/commands.hpp"
#include "experiments/reproduce_sweep.hpp"

namespace sp {

// Verifies the headline algorithms on threads, replays a few items, and writes
// the report.
int reproduce_quick(const SweepOptions& options, bool json, Command& command);

// Timelines of one attention layer by LASP-2, LASP-1 and Ring Attention, for
// the report.
void write_headline_timelines(const std::string& folder);

}  // namespace sp
