// Verdicts of rows and items, and how an item is run.
// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/replay.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

// Decimal values have no exact binary form: what a difference of two of them may be off by.
constexpr double kBinary = 1e-12;

bool agrees(const ReplayRow& row) {
  if (row.ours == row.paper) return true;  // also where both are infinite
  const double difference = std::abs(row.ours - row.paper);
  const double noise = kBinary * std::max(std::abs(row.ours), std::abs(row.paper));
  return difference <= row.band * std::abs(row.ours) + noise || difference <= row.rounding + noise;
}

std::string disagreement(const ReplayRow& row) {
  if (std::isnan(row.ours)) return "no value came out";
  if (row.paper == 0) return fmt::format("{:.4g} where the paper has 0", row.ours);
  const double of_ours = std::abs((row.ours - row.paper) / row.ours);
  return fmt::format(
      "off by {:+.3g} %; that is {:.3g} % of ours, more than the band of {:.3g} % and the paper's "
      "rounding",
      100 * row.error(), 100 * of_ours, 100 * row.band);
}

}  // namespace

std::string name_of(ClaimVerdict verdict) {
  switch (verdict) {
    case ClaimVerdict::kReproduced:
      return "reproduced";
    case ClaimVerdict::kNotReproduced:
      return "not reproduced";
    case ClaimVerdict::kNotCheckable:
      return "not checkable here";
    case ClaimVerdict::kContext:
      return "context";
  }
  fail_check("verdict", "a verdict without a name");
}

std::string name_of(Provenance provenance) {
  switch (provenance) {
    case Provenance::kFormula:
      return "formula";
    case Provenance::kCounted:
      return "counted";
    case Provenance::kSimulated:
      return "simulated";
    case Provenance::kMeasured:
      return "measured";
  }
  fail_check("provenance", "a provenance without a name");
}

ReplayRow judged(ReplayRow row) {
  SP_CHECK(row.band >= 0 && row.rounding >= 0, "a band is a width");
  if (row.verdict == ClaimVerdict::kNotCheckable || std::isnan(row.paper)) return row;
  if (agrees(row)) {
    // A number that the calibration has seen is no evidence.
    row.verdict = row.fitted ? ClaimVerdict::kContext : ClaimVerdict::kReproduced;
    return row;
  }
  row.verdict = ClaimVerdict::kNotReproduced;
  if (row.reason.empty()) row.reason = disagreement(row);
  return row;
}

ReplayRow not_checkable(std::string label, std::string quantity, std::string unit, double paper,
                        std::string what_it_would_take) {
  ReplayRow row;
  row.label = std::move(label);
  row.quantity = std::move(quantity);
  row.unit = std::move(unit);
  row.paper = paper;
  row.verdict = ClaimVerdict::kNotCheckable;
  row.reason = std::move(what_it_would_take);
  return row;
}

ReplayResult concluded(ReplayResult result) {
  SP_CHECK(!result.rows.empty(), "an item without rows");
  SP_CHECK(!result.assumption.empty(), "an item that does not say what decides it");
  std::int64_t judged = 0, missed = 0;
  const ReplayRow* first_missed = nullptr;
  const ReplayRow* first_unchecked = nullptr;
  for (const ReplayRow& row : result.rows) {
    const bool plain =
        row.verdict == ClaimVerdict::kReproduced || row.verdict == ClaimVerdict::kContext;
    SP_CHECK(plain || !row.reason.empty(), row.label + ", " + row.quantity + ": no reason");
    if (row.verdict == ClaimVerdict::kNotCheckable && first_unchecked == nullptr)
      first_unchecked = &row;
    judged +=
        row.verdict == ClaimVerdict::kReproduced || row.verdict == ClaimVerdict::kNotReproduced;
    if (row.verdict != ClaimVerdict::kNotReproduced) continue;
    ++missed;
    if (first_missed == nullptr) first_missed = &row;
  }
  if (result.verdict != ClaimVerdict::kContext) {
    SP_CHECK(result.verdict == ClaimVerdict::kReproduced || !result.reason.empty(), "no reason");
    return result;
  }
  const auto because = [](const ReplayRow& row) {
    return fmt::format("{}, {}: {}", row.label, row.quantity, row.reason);
  };
  if (first_missed != nullptr) {
    result.verdict = ClaimVerdict::kNotReproduced;
    if (result.reason.empty())
      result.reason = fmt::format("{} of {} values; {}", missed, judged, because(*first_missed));
  } else if (judged > 0) {
    result.verdict = ClaimVerdict::kReproduced;
  } else if (first_unchecked != nullptr) {
    result.verdict = ClaimVerdict::kNotCheckable;
    if (result.reason.empty()) result.reason = because(*first_unchecked);
  }
  return result;
}

Platform ReplayContext::platform(const std::string& key) const {
  static std::map<std::string, Platform> loaded;
  const std::string name = config.text(key);
  const auto known = loaded.find(name);
  if (known != loaded.end()) return known->second;
  try {
    return loaded.emplace(name, find_platform(name)).first->second;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) throw;
    config.refuse(key, error.what());
  }
}

std::vector<Platform> platforms_of(const Config& config) {
  // What stands between two quotes; what stands outside them names no platform.
  std::set<std::string> words;
  const std::string& text = config.verbatim();
  for (std::size_t from = 0, to = 0; to != std::string::npos; from = to + 1) {
    to = text.find_first_of("\"'", from);
    words.insert(text.substr(from, to - from));
  }
  const std::vector<std::string> known = platform_names();
  std::vector<Platform> platforms;
  for (const std::string& word : words) {
    const bool path = word.ends_with(".toml") && word.find('\n') == std::string::npos;
    if (path || std::find(known.begin(), known.end(), word) != known.end())
      platforms.push_back(find_platform(word));
  }
  return platforms;
}

ReplayResult run_replay(const ReplayItem& item, const std::string& config_path,
                        const std::function<void(std::int64_t, std::int64_t)>& progress) {
  const Config config = load_config(config_path);
  const auto show = [&](std::int64_t done, std::int64_t total) {
    if (progress) progress(done, total);
  };
  try {
    ReplayResult result = item.run(ReplayContext{config, show});
    config.finish();
    return concluded(std::move(result));
  } catch (const Error& error) {
    const std::string what = error.what();
    if (error.kind() != ErrorKind::kUsage || what.starts_with(config_path)) throw;
    throw Error(ErrorKind::kUsage, fmt::format("{}: {}", config_path, what));
  }
}

}  // namespace sp
