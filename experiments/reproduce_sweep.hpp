// Replays one after the other: each is stored as soon as it is done, or read
// back where a stored one still holds, so that an interrupted sweep loses
// nothing. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "harness/papers/replay_file.hpp"

namespace sp {

struct SweepOptions {
  std::string config;  // a file for one item, or a folder with <id>.toml; empty: the shipped ones
  std::string out_dir = "data/results";
  bool resume = false;
  std::string command_line;
};

struct ReplayOutcome {
  const ReplayItem* item = nullptr;
  ReplayRecord record;
  std::string stored;    // path of its run file; empty: it could not be written
  bool resumed = false;  // read from a finished sweep
  std::string broken;    // why it has no result; empty: it has one
  double seconds = 0;
};

// Ids and names of papers, `quick` not among them. Throws Error(kUsage) with
// what is allowed.
std::vector<const ReplayItem*> chosen_replays(const std::vector<std::string>& words);

// Makes the folder. Throws Error(kEnvironment) if it cannot, or cannot write into it.
void make_results_folder(const std::string& folder);

// An item that throws is broken and the others still run; but a single one with
// a config that the user is to blame for throws Error(kUsage). done(outcome)
// after each.
std::vector<ReplayOutcome> sweep(const std::vector<const ReplayItem*>& items,
                                 const SweepOptions& options,
                                 const std::function<void(const ReplayOutcome&)>& done);

}  // namespace sp
