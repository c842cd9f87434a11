// Measurements of papers that a platform's model predicts: what replays show and what calibrations
// fit. Which rows are fitted is declared here, with the rows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "harness/papers/rows.hpp"

namespace sp {

struct MeasuredRow {
  std::string label, quantity, unit;
  PaperValue paper;
  std::function<double(const Platform&)> predict;
  bool fitted = false;  // parameters of the platform come from it
  std::string suspect;  // why it counts neither for fit nor for residuals; empty: it counts
};

// Judged by the platform's band; a suspect row that fails says why it is suspect.
ReplayRow replay_row(const MeasuredRow& row, const Platform& platform);
std::vector<ReplayRow> replay_rows(
    const std::vector<MeasuredRow>& rows, const Platform& platform,
    const std::function<void(std::int64_t done, std::int64_t total)>& progress);
// "rows not fitted: median error 3.1 %, largest 9.8 % (n rows)" of rows of a replay, suspects aside.
std::string residuals_of(const std::vector<MeasuredRow>& rows, const std::vector<ReplayRow>& out);

// Seconds of an algorithm by its id. Throws Error(kUsage) where it does not run.
struct LayerSeconds {
  double forward = 0, backward = 0;
};
LayerSeconds layer_seconds(const Platform& platform, const std::string& algorithm,
                           const Problem& problem, const World& world, bool backward = true);
// One kernel per pass on one device, with nothing around it.
LayerSeconds single_device_seconds(const Platform& platform, const Problem& problem, bool backward);

// zigzag_readme, of the hardware that a word names ("A100"). The single-GPU kernel and the
// contiguous ring are fitted; zigzag and stripe are predicted.
std::vector<MeasuredRow> zigzag_rows(const PaperTable& table, const std::string& hardware);

// usp_attention, one of its two tables. Of table 3 the ends of the sweep, ulysses 8 and ulysses 1
// at 128K, are fitted; of table 4 none is.
std::vector<MeasuredRow> usp_rows(const PaperTable& table, int number);

// striped_speedups, observed, of the hardware that a word names. Of every platform one model on one
// mesh is fitted.
std::vector<MeasuredRow> striped_rows(const PaperTable& speedups, const PaperTable& models,
                                      const std::string& hardware);

}  // namespace sp
