// The subcommands of seqpar. Each adds itself to the application and, when chosen, sets what to
// run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>

namespace sp {

// Exit codes, also in `seqpar --help`.
enum ExitCode : int { kOk = 0, kFailed = 1, kUsageError = 2, kEnvironmentError = 3, kTooSlow = 4 };

struct Command {
  std::string line;               // as typed, for files
  std::function<int()> run;       // of the chosen subcommand
  std::shared_ptr<void> session;  // of a multi-process back-end; outlives the telling of errors
  // Ends peers that may wait for this process; set by a multi-process back-end.
  std::function<void(int)> abort;
};

void add_list(CLI::App& app, Command& command);
void add_verify(CLI::App& app, Command& command);
void add_bench(CLI::App& app, Command& command);
void add_simulate(CLI::App& app, Command& command);
void add_calibrate(CLI::App& app, Command& command);
void add_compute(CLI::App& app, Command& command);
void add_check(CLI::App& app, Command& command);
void add_reproduce(CLI::App& app, Command& command);
void add_compare(CLI::App& app, Command& command);
void add_report(CLI::App& app, Command& command);
void add_env(CLI::App& app, Command& command);

}  // namespace sp
