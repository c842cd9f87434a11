// Replays: an item of a paper, what the paper says, what comes out here, and the verdict.
//
// Verdict    reproduced: |ours - paper| is within the band of ours, or within the paper's own
//            rounding; not reproduced: it is not, with the reason; not checkable here: with what it
//            would take. A row of a figure that the paper does not print has no paper value and no
//            verdict: it is context.
// Honesty    The band comes from the platform's calibration or is 0 for exact formulas; an item
//            never sets it to fit. The assumption that decides an item is a sentence of its result.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "harness/cluster/simulation.hpp"
#include "harness/config/config.hpp"
#include "harness/papers/paper_table.hpp"

namespace sp {

enum class ClaimVerdict : std::uint8_t { kReproduced, kNotReproduced, kNotCheckable, kContext };
// "reproduced", "not reproduced", "not checkable here", "context"
std::string name_of(ClaimVerdict verdict);

// How a number came about; never mixed in one column.
enum class Provenance : std::uint8_t { kFormula, kCounted, kSimulated, kMeasured };
std::string name_of(Provenance provenance);  // "formula", "counted", "simulated", "measured"

struct ReplayRow {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  std::string label;     // which row: "8xL20, 32K, ulysses 4"
  std::string quantity;  // "lb_ring"
  std::string unit;      // "1/s"
  double paper = kNone;
  Grade grade = Grade::kPrinted;
  double rounding = 0;  // absolute: half a unit of the paper's last digit
  double ours = kNone;
  Provenance provenance = Provenance::kSimulated;
  double band = 0;      // relative to ours
  bool fitted = false;  // used by the calibration: agreement proves nothing
  ClaimVerdict verdict = ClaimVerdict::kContext;
  std::string reason;  // unless reproduced or context: one sentence
  double error() const { return ours / paper - 1; }
};

// Fills verdict (and, where it is empty and the row is not reproduced, a reason with the error).
ReplayRow judged(ReplayRow row);
// A row that cannot be checked here, and what it would take.
ReplayRow not_checkable(std::string label, std::string quantity, std::string unit, double paper,
                        std::string what_it_would_take);

// One line of a plot.
struct ReplayCurve {
  std::string plot;  // lines of one plot share this: its title
  std::string name;  // legend; the algorithm's id where it is one
  std::string x, y;  // axis labels with units: "sequence length (tokens)"
  bool from_paper = false;
  Provenance provenance = Provenance::kSimulated;  // of ours
  std::vector<double> xs, ys;                      // NaN: no value (out of memory)
};

struct ReplayResult {
  std::vector<ReplayRow> rows;
  std::vector<ReplayCurve> curves;
  std::string assumption;             // what decides the item, one or two sentences
  std::vector<std::string> findings;  // what came out, one sentence each
  // Of the item: reproduced if all its judged rows are; else not reproduced (`reason`).
  ClaimVerdict verdict = ClaimVerdict::kContext;
  std::string reason;
};
// Sets the item's verdict from its rows unless it is set.
ReplayResult concluded(ReplayResult result);

struct ReplayContext {
  const Config& config;  // experiments/configs/<id>.toml; run() must ask for all of its keys
  std::function<void(std::int64_t done, std::int64_t total)> progress;
  Platform platform(const std::string& key) const;  // of the config's key, loaded once
};

struct ReplayItem {
  const char* id;     // "<paper>/<item>": token_ring/case-study
  const char* title;  // one line
  const char* paper;  // citation with arXiv number
  ReplayResult (*run)(const ReplayContext&);
};

// The platforms that a config names, anywhere: what its item's numbers depend on besides it.
std::vector<Platform> platforms_of(const Config& config);

// All items that run on `sim`, in the order of papers.
std::span<const ReplayItem* const> replay_items();
const ReplayItem* find_replay(const std::string& id);
// Loads the config, runs, refuses keys that the item did not use, concludes.
ReplayResult run_replay(const ReplayItem& item, const std::string& config_path,
                        const std::function<void(std::int64_t, std::int64_t)>& progress);

}  // namespace sp
