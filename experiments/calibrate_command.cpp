// seqpar calibrate: fits a platform's parameters on the declared rows of papers, and says how well
// the others are predicted.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include "experiments/commands.hpp"
#include "harness/papers/calibration.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

struct CalibrateWords {
  std::string platform;
  bool keep = false, write = false;
};

std::string describe(const Residuals& r) {
  return fmt::format("{} rows, median error {:.1f} %, largest {:.1f} %", r.rows, 100 * r.median,
                     100 * r.worst);
}

void print(const CalibrationPlan& plan, const Calibration& before, const Calibration& after) {
  fmt::print("# {}: fitted on {}\n# evaluated on {}\n", plan.platform, plan.fitted_on,
             plan.evaluated_on);
  for (std::size_t i = 0; i < plan.parameters.size(); ++i)
    fmt::print("  {:<20} {:>9.4g} -> {:>9.4g} {}\n", plan.parameters[i].key, before.values[i],
               after.values[i], plan.parameters[i].unit);
  fmt::print("# {:<56} {:<16} {:>10} {:>10} {:>8} {:>8}  use\n", "row", "quantity", "paper", "ours",
             "before", "error");
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const MeasuredRow& row = plan.rows[i];
    const double paper = row.paper.value;
    fmt::print("  {:<56} {:<16} {:>10.4g} {:>10.4g} {:>+7.1f}% {:>+7.1f}%  {}\n", row.label,
               row.quantity, paper, after.ours[i], 100 * (before.ours[i] / paper - 1),
               100 * (after.ours[i] / paper - 1),
               !row.suspect.empty() ? "suspect"
               : row.fitted         ? "fitted"
                                    : "evaluated");
  }
  fmt::print("fitted:    {}\nevaluated: {} (before: {})\nband:      ±{:.0f} %\n",
             describe(after.fitted), describe(after.others), describe(before.others),
             100 * after.band);
}

void write(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file)
    throw Error(ErrorKind::kEnvironment, fmt::format("{}: cannot write the calibration", path));
  fmt::print(stderr, "seqpar: wrote {}\n", path);
}

int calibrate(const CalibrateWords& o) {
  const CalibrationPlan plan = calibration_plan(o.platform);
  const Platform before = find_platform(o.platform);
  const Platform after = o.keep ? before : fit(plan, before);
  const Calibration new_one = evaluate(plan, after);
  print(plan, evaluate(plan, before), new_one);
  if (!o.write) return kOk;
  const std::string record = calibration_record_path(o.platform);
  std::filesystem::create_directories(std::filesystem::path(record).parent_path());
  write(record, calibration_record(plan, new_one));
  write(before.file, calibrated_text(plan, new_one, before.verbatim));
  return kOk;
}

}  // namespace

void add_calibrate(const CommandLine& app, Command& command) {
  const CommandLine sub =
      app.subcommand("calibrate", "Fit a platform to measurements of papers, show residuals");
  const auto o = std::make_shared<CalibrateWords>();
  sub.option("platform", o->platform, "A platform with declared rows").required();
  sub.flag("--keep", o->keep, "Fit nothing: evaluate the platform's file as it is");
  sub.flag("--write", o->write, "Store the record, and the parameters in the platform's file");
  sub.footer("Example: seqpar calibrate h800_nvlink --keep");
  sub.callback([&command, o] { command.run = [o] { return calibrate(*o); }; });
}

}  // namespace sp
