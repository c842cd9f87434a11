// What `reproduce` says about replays: tables for people, JSON for programs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "experiments/reproduce_sweep.hpp"

namespace sp {

// Of several items, only rows that are not reproduced, and not more than a few.
enum class RowsShown { kAll, kExceptions };
std::string outcome_text(const ReplayOutcome& outcome, RowsShown shown);
std::string summary_text(const std::vector<ReplayOutcome>& outcomes);

nlohmann::ordered_json outcome_json(const ReplayOutcome& outcome);
nlohmann::ordered_json summary_json(const std::vector<ReplayOutcome>& outcomes);

}  // namespace sp
