// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/rows.hpp"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "reference/problem/error.hpp"

namespace sp {

PaperTable table_of(const Config& config, const std::string& key) {
  const std::string name = config.text(key);
  try {
    return name.find('/') == std::string::npos ? paper_table(name) : read_paper_table(name);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) throw;
    config.refuse(key, error.what());
  }
}

PaperValue cell(const PaperTable& table, std::size_t row, const std::string& column) {
  return {table.number(row, column), table.grade(row), table.rounding(row, column)};
}

std::int64_t whole_number(const PaperTable& table, std::size_t row, const std::string& column,
                          std::int64_t most) {
  const double number = table.number(row, column);
  if (!(number >= 1 && number <= static_cast<double>(most) && number == std::floor(number)))
    throw Error(ErrorKind::kUsage,
                fmt::format("{}, row {}: {} is '{}'; allowed: a whole number from 1 to {}",
                            table.name(), row + 1, column, table.text(row, column), most));
  return static_cast<std::int64_t>(number);
}

int rank_count(const PaperTable& table, std::size_t row, const std::string& column) {
  return static_cast<int>(whole_number(table, row, column, 4096));
}

ReplayRow row_of(std::string label, std::string quantity, std::string unit, const PaperValue& paper,
                 double ours, Provenance provenance, std::string reason) {
  ReplayRow row =
      context_row(std::move(label), std::move(quantity), std::move(unit), ours, provenance);
  row.paper = paper.value;
  row.grade = paper.grade;
  row.rounding = paper.rounding;
  ReplayRow verdict = judged(row);
  if (verdict.verdict != ClaimVerdict::kNotReproduced || reason.empty()) return verdict;
  row.reason = std::move(reason);
  return judged(std::move(row));
}

ReplayRow context_row(std::string label, std::string quantity, std::string unit, double ours,
                      Provenance provenance) {
  ReplayRow row;
  row.label = std::move(label);
  row.quantity = std::move(quantity);
  row.unit = std::move(unit);
  row.ours = ours;
  row.provenance = provenance;
  return row;
}

ReplayRow claim_row(std::string label, std::string statement, bool holds, Provenance provenance,
                    std::string reason, Grade grade) {
  return row_of(std::move(label), std::move(statement), "holds", {1, grade, 0}, holds ? 1 : 0,
                provenance, std::move(reason));
}

std::string reproduced_of(const ReplayResult& result) {
  std::int64_t reproduced = 0, judged = 0;
  for (const ReplayRow& row : result.rows) {
    reproduced += row.verdict == ClaimVerdict::kReproduced;
    judged +=
        row.verdict == ClaimVerdict::kReproduced || row.verdict == ClaimVerdict::kNotReproduced;
  }
  return fmt::format("{} of {}", reproduced, judged);
}

}  // namespace sp
