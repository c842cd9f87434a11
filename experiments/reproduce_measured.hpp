// Real scaling runs of the papers' experiments: `seqpar reproduce ITEM --backend thread|mpi|cuda`.
//
// An item has one if experiments/configs/<item>.measured.toml exists. Its shapes are the paper's;
// numbers of tokens and ranks are named for CPUs and for GPUs, as they fit. Ranks that the back-end
// does not have are left out.
// Measured    Stored as run files of kind "measured", as `seqpar bench` writes them; there are no
//             verdicts, because the paper's machine is another one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "experiments/commands.hpp"

namespace sp {

struct MeasuredItem {
  std::string id, title;
};
// All of them, by id.
std::vector<MeasuredItem> measured_items();

// All items where none is named. `config`: another file for the only item, or empty. Exit code:
// kFailed if a row of an item fails its check. Collective over the back-end. Throws Error(kUsage)
// with what is allowed, Error(kEnvironment) for a back-end that is not there.
int reproduce_measured(const std::vector<std::string>& items, const std::string& backend,
                       const std::string& config, const std::string& out_dir, bool json,
                       Command& command);

}  // namespace sp
