// Rows of items that need no simulation: numbers that are counted or follow from a formula, and
// claims that hold or do not.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "harness/papers/replay.hpp"

namespace sp {

// The table that a config names: of data/papers, or a file if it has a slash.
PaperTable table_of(const Config& config, const std::string& key = "table");

// What the paper says, in one cell of a row.
struct PaperValue {
  double value = ReplayRow::kNone;
  Grade grade = Grade::kPrinted;
  double rounding = 0;
};
PaperValue cell(const PaperTable& table, std::size_t row, const std::string& column);
// A count; throws Error(kUsage) unless it is a whole number from 1 to `most`.
std::int64_t whole_number(const PaperTable& table, std::size_t row, const std::string& column,
                          std::int64_t most = std::int64_t{1} << 32);
int rank_count(const PaperTable& table, std::size_t row, const std::string& column);

// Judged; `reason` explains a row that is not reproduced.
ReplayRow row_of(std::string label, std::string quantity, std::string unit, const PaperValue& paper,
                 double ours, Provenance provenance, std::string reason = {});
// Ours alone, without a verdict.
ReplayRow context_row(std::string label, std::string quantity, std::string unit, double ours,
                      Provenance provenance);
// A statement of the paper: 1 against 1 if it holds, 1 against 0 if not.
ReplayRow claim_row(std::string label, std::string statement, bool holds, Provenance provenance,
                    std::string reason, Grade grade = Grade::kText);

// "3 of 4", for findings.
std::string reproduced_of(const ReplayResult& result);

}  // namespace sp
