// Calibration: a few parameters of a platform, fitted on declared rows of papers; the other rows
// say how far off its predictions are. experiments/platforms/calibration/<platform>.toml keeps what
// came out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/papers/measured.hpp"

namespace sp {

struct FittedParameter {
  std::string key;  // within its table of the platform's file: "diagonal"
  std::string unit;
  double scale = 1;  // base units per unit
  double least = 0, most = 0;
  double& (*of)(Platform&);
};

struct CalibrationPlan {
  std::string platform;
  std::string fitted_on, evaluated_on;  // in words
  std::vector<FittedParameter> parameters;
  std::vector<MeasuredRow> rows;
  bool ratios = false;  // the rows are ratios of times: the band is theirs, not that of a time
};

std::vector<std::string> calibrated_platforms();
// Throws Error(kUsage) for a platform without one.
CalibrationPlan calibration_plan(const std::string& platform);

struct Residuals {
  std::int64_t rows = 0;
  double median = 0, worst = 0;  // relative to the paper, absolute value
};

struct Calibration {
  std::vector<double> values;  // of the parameters, in their units
  std::vector<double> ours;    // of the rows
  Residuals fitted, others;    // suspect rows are in neither
  double band = 0;  // largest error of the others relative to ours, two digits, rounded up
};

Calibration evaluate(const CalibrationPlan& plan, const Platform& platform);

// The platform with the parameters that minimise the sum of squares of log(ours / paper) over the
// fitted rows, searched from its own: deterministic.
Platform fit(const CalibrationPlan& plan, Platform platform);

// The record file.
std::string calibration_record(const CalibrationPlan& plan, const Calibration& calibration);
std::string calibration_record_path(const std::string& platform);
// The platform's file with the parameters, the band and its source.
std::string calibrated_text(const CalibrationPlan& plan, const Calibration& calibration,
                            const std::string& verbatim);

}  // namespace sp
