// The subcommands of seqpar. Each adds itself to the application and, when chosen, sets what to
// run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "experiments/command_line.hpp"

namespace sp {

// Exit codes, also in `seqpar --help`.
enum ExitCode : int { kOk = 0, kFailed = 1, kUsageError = 2, kEnvironmentError = 3, kTooSlow = 4 };

struct Command {
  std::vector<std::string> words;  // as typed, the program first
  std::string line;                // the same as one text, for files
  std::function<int()> run;        // of the chosen subcommand
  std::shared_ptr<void> session;   // of a multi-process back-end; outlives the telling of errors
  // Ends peers that may wait for this process; set by a multi-process back-end.
  std::function<void(int)> abort;
};

void add_list(const CommandLine& app, Command& command);
void add_verify(const CommandLine& app, Command& command);
void add_bench(const CommandLine& app, Command& command);
void add_simulate(const CommandLine& app, Command& command);
void add_calibrate(const CommandLine& app, Command& command);
void add_compute(const CommandLine& app, Command& command);
void add_check(const CommandLine& app, Command& command);
void add_sensitivity(const CommandLine& app, Command& command);
void add_reproduce(const CommandLine& app, Command& command);
void add_compare(const CommandLine& app, Command& command);
void add_report(const CommandLine& app, Command& command);
void add_env(const CommandLine& app, Command& command);

}  // namespace sp
