// Times every row of a plan: what `seqpar bench` and the measured replays run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "experiments/bench_plan.hpp"
#include "harness/results/bench_file.hpp"
#include "harness/run/backend.hpp"

namespace sp {

// Every algorithm, module, length and number of ranks, each beside one rank; a progress bar on the
// leading process, which alone has the times. Collective over the back-end.
std::vector<BenchRow> run_bench(Backend& backend, const BenchPlan& plan, const BenchWords& words);

BenchTable bench_table(std::vector<BenchRow> rows, const BenchPlan& plan, const BenchWords& words,
                       const std::string& command_line);

// kFailed if a row failed or none was measured, kTooSlow below the floor (percent of ideal).
int bench_exit_code(const std::vector<BenchRow>& rows, const std::optional<double>& floor);

}  // namespace sp
