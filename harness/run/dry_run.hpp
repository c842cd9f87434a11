// A dry run: one rank of an algorithm, alone and without data.
//
// A text never looks at data, so a message may count as arrived when it is posted: the text takes
// its way to the end, and what it sends, computes and holds is what it does in every run. So the
// memory of any rank of any number is known at once, and what it consists of at its highest.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "harness/run/meter.hpp"

namespace sp {

// All tensors of one name that lived together.
struct LiveTensors {
  std::string name;
  std::int64_t count = 0, bytes = 0;
};

struct DryPass {
  MeasuredPass done;
  std::vector<LiveTensors> at_peak;  // the largest first; the shards that the pass was given too
};
struct DryRun {
  DryPass forward, backward;
};
// The problem must be one that the algorithm supports.
DryRun dry_run(const Algorithm& algorithm, const Problem& problem, const World& world, int rank);

}  // namespace sp
