// Calibrations: the stored records are what the platforms' files give, fits find what they are
// meant to, and errors stay within what predictions claim.
// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/calibration.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

std::string content(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class EveryCalibration : public testing::TestWithParam<std::string> {};

TEST_P(EveryCalibration, IsStoredAsAFreshEvaluationGivesIt) {
  const CalibrationPlan plan = calibration_plan(GetParam());
  const Platform platform = find_platform(GetParam());
  const Calibration now = evaluate(plan, platform);
  EXPECT_EQ(content(calibration_record_path(plan.platform)), calibration_record(plan, now))
      << "run `seqpar calibrate " << plan.platform << " --keep --write`";
  EXPECT_EQ(platform.verbatim, calibrated_text(plan, now, platform.verbatim));
  EXPECT_DOUBLE_EQ(platform.band, now.band);
}

TEST_P(EveryCalibration, PredictsRowsThatItDidNotFit) {
  const CalibrationPlan plan = calibration_plan(GetParam());
  const Calibration now = evaluate(plan, find_platform(GetParam()));
  EXPECT_LT(plan.parameters.size(), 4u);
  EXPECT_GE(now.fitted.rows, std::ssize(plan.parameters));
  EXPECT_GE(now.others.rows, now.fitted.rows);
  EXPECT_LE(now.others.median, 0.10);
  EXPECT_LE(now.others.worst, 0.30);
}

INSTANTIATE_TEST_SUITE_P(Platforms, EveryCalibration, testing::ValuesIn(calibrated_platforms()),
                         [](const auto& each) { return each.param; });

// From a platform that is far off, on data that a known one made.
TEST(Fit, FindsTheParametersThatMadeTheData) {
  CalibrationPlan plan = calibration_plan("a100_nvlink");
  Platform truth = find_platform("a100_nvlink");
  const std::vector<double> values{0.5, 0.8, 4};
  for (std::size_t i = 0; i < values.size(); ++i) plan.parameters[i].of(truth) = values[i];
  for (MeasuredRow& row : plan.rows) row.paper.value = row.predict(truth);
  Platform found = fit(plan, find_platform("a100_nvlink"));
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_NEAR(plan.parameters[i].of(found), values[i], 0.01 * values[i])
        << plan.parameters[i].key;
  EXPECT_LT(evaluate(plan, found).others.worst, 0.01);
}

TEST(Fit, LeavesRowsAloneThatAreNotFitted) {
  CalibrationPlan plan = calibration_plan("h800_nvlink");
  const Platform start = find_platform("h800_nvlink");
  Platform before = fit(plan, start);
  for (MeasuredRow& row : plan.rows) {
    if (!row.fitted) row.paper.value *= 2;
  }
  Platform after = fit(plan, start);
  for (const FittedParameter& parameter : plan.parameters)
    EXPECT_EQ(parameter.of(before), parameter.of(after)) << parameter.key;
}

TEST(Plans, AreRefusedForOtherPlatforms) { EXPECT_THROW(calibration_plan("dgx_a100"), Error); }

}  // namespace
}  // namespace sp
