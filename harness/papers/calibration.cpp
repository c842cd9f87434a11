// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/calibration.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "harness/config/shipped.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr double kGiga = 1e9;

#define SP_KERNEL_PARAMETER(name, least, most)                                               \
  FittedParameter {                                                                          \
    #name, "1", 1, least, most, [](Platform& p) -> double& { return p.device.kernels.name; } \
  }

std::vector<FittedParameter> peer_parameters() {
  return {SP_KERNEL_PARAMETER(attention_forward, 0.2, 0.95),
          SP_KERNEL_PARAMETER(attention_backward, 0.1, 0.9), SP_KERNEL_PARAMETER(diagonal, 0.5, 1)};
}

CalibrationPlan a100_plan() {
  CalibrationPlan plan{
      "a100_nvlink", "zigzag README, 8x A100: one device and the contiguous ring, fwd and fwd+bwd",
      "its zigzag and stripe rows, and USP table 4 at 32K", peer_parameters(),
      zigzag_rows(paper_table("zigzag_readme"), "A100")};
  plan.parameters.erase(plan.parameters.begin());  // the forward share is FlashAttention-2's own
  plan.parameters.push_back(SP_KERNEL_PARAMETER(merge_traffic, 1, 20));
  for (MeasuredRow& row : usp_rows(paper_table("usp_attention"), 4))
    plan.rows.push_back(std::move(row));
  return plan;
}

CalibrationPlan h800_plan() {
  return {"h800_nvlink",
          "zigzag README, 8x H800: one device and the contiguous ring, fwd and fwd+bwd",
          "its zigzag and stripe rows; merge_traffic is that of a100_nvlink", peer_parameters(),
          zigzag_rows(paper_table("zigzag_readme"), "H800")};
}

CalibrationPlan l20_plan() {
  return {"l20_pcie",
          "USP table 3, 128K, ulysses 8 and ulysses 1",
          "the other 20 rows of the table; merge_traffic and diagonal are those of a100_nvlink",
          {SP_KERNEL_PARAMETER(attention_forward, 0.2, 0.98),
           {"fan_bandwidth", "GB/s", kGiga, 0.1, 100,
            [](Platform& p) -> double& { return p.comm.fan_bandwidth; }}},
          usp_rows(paper_table("usp_attention"), 3)};
}

CalibrationPlan striped_plan(const char* platform, const char* hardware, const char* mesh,
                             const char* others) {
  return {platform,
          fmt::format("Striped Attention, observed speedups of 1B on mesh {}", mesh),
          others,
          {SP_KERNEL_PARAMETER(matrix, 0.01, 1), SP_KERNEL_PARAMETER(diagonal, 0.3, 1)},
          striped_rows(paper_table("striped_speedups"), paper_table("striped_models"), hardware),
          true};
}

#undef SP_KERNEL_PARAMETER

struct NamedPlan {
  const char* platform;
  CalibrationPlan (*make)();
};
constexpr NamedPlan kPlans[] = {
    {"a100_nvlink", a100_plan},
    {"a100_nvlink_jax",
     [] {
       return striped_plan("a100_nvlink_jax", "A100", "2x4",
                           "the other 73 rows on A100: eight meshes, three models");
     }},
    {"h800_nvlink", h800_plan},
    {"l20_pcie", l20_plan},
    {"tpu_v3_jax",
     [] {
       return striped_plan("tpu_v3_jax", "TPU v3", "2x4",
                           "the other 12 rows on TPU v3; those of 3B repeat 1B, a slip it seems");
     }},
    {"tpu_v4_jax",
     [] {
       return striped_plan("tpu_v4_jax", "TPU v4", "4x4",
                           "the other 34 rows on TPU v4: two meshes, three models");
     }},
};

bool counts(const MeasuredRow& row, bool fitted) {
  return row.suspect.empty() && row.fitted == fitted;
}

Residuals residuals(const CalibrationPlan& plan, const std::vector<double>& ours, bool fitted) {
  std::vector<double> errors;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (counts(plan.rows[i], fitted))
      errors.push_back(std::abs(ours[i] / plan.rows[i].paper.value - 1));
  }
  if (errors.empty()) return {};
  std::sort(errors.begin(), errors.end());
  const std::size_t n = errors.size();
  return {static_cast<std::int64_t>(n), (errors[(n - 1) / 2] + errors[n / 2]) / 2, errors.back()};
}

// log(ours / paper) of the fitted rows.
std::vector<double> deviations(const CalibrationPlan& plan, const Platform& platform) {
  std::vector<double> off;
  for (const MeasuredRow& row : plan.rows) {
    if (counts(row, true)) off.push_back(std::log(row.predict(platform) / row.paper.value));
  }
  return off;
}

double product(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// Factors exp(step) on the parameters, within their bounds.
Platform moved(const CalibrationPlan& plan, Platform platform, const std::vector<double>& steps) {
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const FittedParameter& parameter = plan.parameters[i];
    double& value = parameter.of(platform);
    value = std::clamp(value * std::exp(std::clamp(steps[i], -0.5, 0.5)),
                       parameter.least * parameter.scale, parameter.most * parameter.scale);
  }
  return platform;
}

using Matrix = std::vector<std::vector<double>>;

// Gaussian elimination; a is symmetric and positive definite.
std::vector<double> solve(Matrix a, std::vector<double> b) {
  const std::size_t n = b.size();
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = k + 1; i < n; ++i) {
      const double factor = a[i][k] / a[k][k];
      for (std::size_t j = k; j < n; ++j) a[i][j] -= factor * a[k][j];
      b[i] -= factor * b[k];
    }
  }
  for (std::size_t k = n; k-- > 0;) {
    for (std::size_t j = k + 1; j < n; ++j) b[k] -= a[k][j] * b[j];
    b[k] /= a[k][k];
  }
  return b;
}

// Of the deviations, by parameter. Away from the upper bound, where many a parameter starts.
Matrix slopes(const CalibrationPlan& plan, Platform platform, const std::vector<double>& off) {
  constexpr double kStep = 0.02;
  Matrix result;
  for (std::size_t i = 0; i < plan.parameters.size(); ++i) {
    const FittedParameter& parameter = plan.parameters[i];
    const bool low = parameter.of(platform) < 1.1 * parameter.least * parameter.scale;
    std::vector<double> steps(plan.parameters.size());
    steps[i] = low ? kStep : -kStep;
    result.push_back(deviations(plan, moved(plan, platform, steps)));
    for (std::size_t row = 0; row < off.size(); ++row)
      result[i][row] = (result[i][row] - off[row]) / steps[i];
  }
  return result;
}

// Four digits: what a file holds is what was evaluated.
double rounded(double value) { return std::stod(fmt::format("{:.4g}", value)); }

// `key = { value = OLD, ...` with the new number.
void replace_value(std::string& text, const std::string& key, double value) {
  const std::string head = fmt::format("\n{} = {{ value = ", key);
  const std::size_t at = text.find(head);
  SP_CHECK(at != std::string::npos, "a fitted parameter stands in its platform's file");
  const std::size_t begin = at + head.size();
  text.replace(begin, text.find(',', begin) - begin, fmt::format("{:.4g}", value));
}

void replace_line(std::string& text, std::size_t from, const std::string& key,
                  const std::string& line) {
  const std::size_t at = text.find("\n" + key + " = ", from);
  SP_CHECK(at != std::string::npos, "a platform's file has a calibration");
  text.replace(at + 1, text.find('\n', at + 1) - at - 1, fmt::format("{} = {}", key, line));
}

std::string percent(const Residuals& r) {
  return fmt::format("median error {:.1f} %, largest {:.1f} %", 100 * r.median, 100 * r.worst);
}

}  // namespace

std::vector<std::string> calibrated_platforms() {
  std::vector<std::string> names;
  for (const NamedPlan& plan : kPlans) names.emplace_back(plan.platform);
  return names;
}

CalibrationPlan calibration_plan(const std::string& platform) {
  for (const NamedPlan& plan : kPlans) {
    if (platform == plan.platform) return plan.make();
  }
  throw Error(ErrorKind::kUsage, fmt::format("platform '{}' has no calibration; allowed: {}",
                                             platform, fmt::join(calibrated_platforms(), ", ")));
}

Calibration evaluate(const CalibrationPlan& plan, const Platform& platform) {
  Calibration result;
  Platform copy = platform;
  for (const FittedParameter& parameter : plan.parameters)
    result.values.push_back(rounded(parameter.of(copy) / parameter.scale));
  for (const MeasuredRow& row : plan.rows) {
    result.ours.push_back(row.predict(platform));
    if (!counts(row, false)) continue;
    const double off = std::abs(row.paper.value / result.ours.back() - 1);
    result.band = std::max(result.band, std::ceil(100 * off - 1e-9) / 100);
  }
  result.fitted = residuals(plan, result.ours, true);
  result.others = residuals(plan, result.ours, false);
  return result;
}

// Levenberg and Marquardt's method on the logarithms of the parameters.
Platform fit(const CalibrationPlan& plan, Platform platform) {
  constexpr int kRounds = 30;
  constexpr double kEnough = 1e-3;  // less of the sum of squares is no progress
  const std::size_t n = plan.parameters.size();
  std::vector<double> off = deviations(plan, platform);
  Matrix slope = slopes(plan, platform, off);
  double damping = 1e-3;
  for (int round = 0; round < kRounds && damping < 1e6; ++round) {
    Matrix normal(n, std::vector<double>(n));
    std::vector<double> right(n);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) normal[i][j] = product(slope[i], slope[j]);
      normal[i][i] += damping * normal[i][i] + 1e-9;
      right[i] = -product(slope[i], off);
    }
    const Platform trial = moved(plan, platform, solve(normal, right));
    const std::vector<double> trial_off = deviations(plan, trial);
    const double before = product(off, off), after = product(trial_off, trial_off);
    if (after >= before) {
      damping *= 10;
      continue;
    }
    platform = trial;
    off = trial_off;
    if (after > before * (1 - kEnough)) break;
    slope = slopes(plan, platform, off);
    damping /= 10;
  }
  for (const FittedParameter& parameter : plan.parameters) {
    double& value = parameter.of(platform);
    value = rounded(value / parameter.scale) * parameter.scale;
  }
  return platform;
}

std::string calibration_record_path(const std::string& platform) {
  return shipped(fmt::format("experiments/platforms/calibration/{}.toml", platform)).string();
}

std::string calibration_record(const CalibrationPlan& plan, const Calibration& calibration) {
  std::string text = fmt::format(
      "# Calibration of {0}, written by `seqpar calibrate {0} --write`.\n"
      "# Errors are ours / paper - 1. Rows marked `suspect` are in no residual.\n"
      "# SPDX-License-Identifier: Apache-2.0\n"
      "platform = \"{0}\"\nfitted_on = \"{1}\"\nevaluated_on = \"{2}\"\nband = {3:.2f}\n\n"
      "[parameters]\n",
      plan.platform, plan.fitted_on, plan.evaluated_on, calibration.band);
  for (std::size_t i = 0; i < plan.parameters.size(); ++i)
    text += fmt::format("{} = {{ value = {:.4g}, unit = \"{}\" }}\n", plan.parameters[i].key,
                        calibration.values[i], plan.parameters[i].unit);
  for (const auto& [name, r] :
       {std::pair{"fitted", calibration.fitted}, std::pair{"not_fitted", calibration.others}})
    text += fmt::format("\n[residuals.{}]\nrows = {}\nmedian = {:.4f}\nworst = {:.4f}\n", name,
                        r.rows, r.median, r.worst);
  for (std::size_t i = 0; i < plan.rows.size(); ++i) {
    const MeasuredRow& row = plan.rows[i];
    text += fmt::format(
        "\n[[row]]\nlabel = \"{}\"\nquantity = \"{}\"\nunit = \"{}\"\npaper = {}\nours = {:.4g}\n"
        "error = {:.4f}\nuse = \"{}\"\n",
        row.label, row.quantity, row.unit, row.paper.value, calibration.ours[i],
        calibration.ours[i] / row.paper.value - 1,
        !row.suspect.empty() ? "suspect"
        : row.fitted         ? "fitted"
                             : "evaluated");
  }
  return text;
}

std::string calibrated_text(const CalibrationPlan& plan, const Calibration& calibration,
                            const std::string& verbatim) {
  std::string text = verbatim;
  for (std::size_t i = 0; i < plan.parameters.size(); ++i)
    replace_value(text, plan.parameters[i].key, calibration.values[i]);
  const std::size_t section = text.find("\n[calibration]");
  replace_line(text, section, "band", fmt::format("{:.2f}", calibration.band));
  replace_line(
      text, section, "source",
      fmt::format("\"calibration/{}.toml: fitted on {}; {} other rows: {}{}\"", plan.platform,
                  plan.fitted_on, calibration.others.rows, percent(calibration.others),
                  plan.ratios ? "; ratios of times only, nothing fixes their scale" : ""));
  return text;
}

}  // namespace sp
