// SPDX-License-Identifier: Apache-2.0
#include "experiments/reproduce_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

namespace sp {
namespace {

constexpr std::size_t kMostExceptions = 8;

using Cells = std::array<std::string, 8>;
const Cells kHeads{"row", "quantity", "unit", "paper", "ours", "error", "band", "by"};

std::string number(double value) { return std::isnan(value) ? "-" : fmt::format("{:.5g}", value); }

std::string percent(double value, const char* format) {
  return std::isfinite(value) ? fmt::format(fmt::runtime(format), 100 * value) : "-";
}

// A grade is told where it is not simply a printed number.
std::string paper_cell(const ReplayRow& row) {
  const bool plain = row.grade == Grade::kPrinted || std::isnan(row.paper);
  return plain ? number(row.paper) : fmt::format("{} ({})", number(row.paper), name_of(row.grade));
}

Cells cells_of(const ReplayRow& row) {
  return {row.label,
          row.quantity,
          row.unit,
          paper_cell(row),
          number(row.ours),
          percent(row.error(), "{:+.1f} %"),
          row.band > 0 ? percent(row.band, "{:.0f} %") : "-",
          std::isnan(row.ours) ? "-" : name_of(row.provenance)};
}

std::string verdict_of(const ReplayRow& row) {
  if (row.verdict == ClaimVerdict::kContext) return row.fitted ? "fitted" : "";
  if (row.reason.empty()) return name_of(row.verdict);
  return fmt::format("{}: {}", name_of(row.verdict), row.reason);
}

// Words to the left, numbers to the right.
std::string line_of(const Cells& cells, const std::array<std::size_t, 8>& widths, char mark,
                    const std::string& verdict) {
  std::string line(1, mark);
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const bool is_number = i >= 3 && i <= 6;
    line += is_number ? fmt::format(" {:>{}}", cells[i], widths[i])
                      : fmt::format(" {:<{}}", cells[i], widths[i]);
  }
  return line + "  " + verdict + "\n";
}

std::string table_text(const std::vector<const ReplayRow*>& rows) {
  std::array<std::size_t, 8> widths{};
  for (std::size_t i = 0; i < kHeads.size(); ++i) widths[i] = kHeads[i].size();
  for (const ReplayRow* row : rows) {
    const Cells cells = cells_of(*row);
    for (std::size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], cells[i].size());
  }
  std::string text = line_of(kHeads, widths, '#', "verdict");
  for (const ReplayRow* row : rows) text += line_of(cells_of(*row), widths, ' ', verdict_of(*row));
  return text;
}

std::size_t count(const ReplayResult& result, ClaimVerdict verdict) {
  return static_cast<std::size_t>(
      std::count_if(result.rows.begin(), result.rows.end(),
                    [&](const ReplayRow& row) { return row.verdict == verdict; }));
}

std::size_t count(const std::vector<ReplayOutcome>& outcomes, ClaimVerdict verdict) {
  return static_cast<std::size_t>(
      std::count_if(outcomes.begin(), outcomes.end(), [&](const ReplayOutcome& outcome) {
        return outcome.broken.empty() && outcome.record.result.verdict == verdict;
      }));
}

std::size_t count_broken(const std::vector<ReplayOutcome>& outcomes) {
  return static_cast<std::size_t>(
      std::count_if(outcomes.begin(), outcomes.end(),
                    [](const ReplayOutcome& outcome) { return !outcome.broken.empty(); }));
}

nlohmann::ordered_json finite(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json row_json(const ReplayRow& row) {
  return {{"label", row.label},
          {"quantity", row.quantity},
          {"unit", row.unit},
          {"paper", finite(row.paper)},
          {"grade", name_of(row.grade)},
          {"rounding", row.rounding},
          {"ours", finite(row.ours)},
          {"error", finite(row.error())},
          {"band", row.band},
          {"provenance", name_of(row.provenance)},
          {"fitted", row.fitted},
          {"verdict", name_of(row.verdict)},
          {"reason", row.reason}};
}

}  // namespace

std::string outcome_text(const ReplayOutcome& outcome, RowsShown shown) {
  std::string text = fmt::format("# {}: {}\n# paper: {}\n", outcome.item->id, outcome.item->title,
                                 outcome.item->paper);
  if (!outcome.broken.empty()) return text + fmt::format("# BROKEN: {}\n\n", outcome.broken);
  const ReplayResult& result = outcome.record.result;
  std::vector<const ReplayRow*> rows;
  for (const ReplayRow& row : result.rows) {
    if (shown == RowsShown::kAll || row.verdict == ClaimVerdict::kNotReproduced)
      rows.push_back(&row);
  }
  const std::size_t all = rows.size();
  if (shown == RowsShown::kExceptions) rows.resize(std::min(all, kMostExceptions));
  if (!rows.empty()) text += table_text(rows);
  if (rows.size() < all) text += fmt::format("# and {} more such rows\n", all - rows.size());
  text += fmt::format("# {} rows: {} reproduced, {} not reproduced, {} not checkable here\n",
                      result.rows.size(), count(result, ClaimVerdict::kReproduced),
                      count(result, ClaimVerdict::kNotReproduced),
                      count(result, ClaimVerdict::kNotCheckable));
  text += fmt::format("# assumption: {}\n", result.assumption);
  for (const std::string& finding : result.findings) text += fmt::format("# found: {}\n", finding);
  text += fmt::format("# verdict: {}{}{}\n", name_of(result.verdict),
                      result.reason.empty() ? "" : ": ", result.reason);
  if (outcome.stored.empty()) return text + "# not stored\n\n";
  return text +
         fmt::format("# {}: {}\n\n", outcome.resumed ? "read from" : "stored", outcome.stored);
}

std::string summary_text(const std::vector<ReplayOutcome>& outcomes) {
  std::string text = fmt::format(
      "# {} items: {} reproduced, {} not reproduced, {} not checkable here, {} without a claim, {} "
      "broken\n",
      outcomes.size(), count(outcomes, ClaimVerdict::kReproduced),
      count(outcomes, ClaimVerdict::kNotReproduced), count(outcomes, ClaimVerdict::kNotCheckable),
      count(outcomes, ClaimVerdict::kContext), count_broken(outcomes));
  for (const ReplayOutcome& outcome : outcomes) {
    const bool broken = !outcome.broken.empty();
    text += fmt::format("  {:<32} {}\n", outcome.item->id,
                        broken ? "BROKEN" : name_of(outcome.record.result.verdict));
  }
  return text;
}

nlohmann::ordered_json outcome_json(const ReplayOutcome& outcome) {
  nlohmann::ordered_json out{
      {"item", outcome.item->id}, {"title", outcome.item->title}, {"paper", outcome.item->paper}};
  if (!outcome.broken.empty()) {
    out["broken"] = outcome.broken;
    return out;
  }
  const ReplayResult& result = outcome.record.result;
  out["verdict"] = name_of(result.verdict);
  out["reason"] = result.reason;
  out["assumption"] = result.assumption;
  out["findings"] = result.findings;
  out["stored"] = outcome.stored;
  out["resumed"] = outcome.resumed;
  out["seconds"] = outcome.seconds;
  out["rows"] = nlohmann::ordered_json::array();
  for (const ReplayRow& row : result.rows) out["rows"].push_back(row_json(row));
  return out;
}

nlohmann::ordered_json summary_json(const std::vector<ReplayOutcome>& outcomes) {
  return {{"items", outcomes.size()},
          {"reproduced", count(outcomes, ClaimVerdict::kReproduced)},
          {"not_reproduced", count(outcomes, ClaimVerdict::kNotReproduced)},
          {"not_checkable", count(outcomes, ClaimVerdict::kNotCheckable)},
          {"without_claim", count(outcomes, ClaimVerdict::kContext)},
          {"broken", count_broken(outcomes)}};
}

}  // namespace sp
