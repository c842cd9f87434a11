// SPDX-License-Identifier: Apache-2.0
#include "experiments/reproduce_quick.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "experiments/backends.hpp"
#include "experiments/progress.hpp"
#include "experiments/report_command.hpp"
#include "experiments/reproduce_text.hpp"
#include "harness/papers/counted.hpp"
#include "harness/results/run_file.hpp"
#include "harness/run/verify.hpp"
#include "optimized/algorithms/registry.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr std::int64_t kCases = 50;  // per algorithm: a few seconds for all
constexpr std::uint64_t kSeed = 1;
// Of every paper what its headline is about.
constexpr const char* kHeadline[] = {
    "rsa",     "ring/contiguous", "ring/zigzag", "token_ring/zigzag",
    "ulysses", "usp/zigzag",      "lasp1",       "lasp2"};
// One simulated comparison, and items that only count.
constexpr const char* kItems[] = {"lasp2/layer-2048k", "rsa/communication", "ring_attention/table2",
                                  "striped/theoretical"};

std::vector<AlgorithmReport> verify_headline(Command& command) {
  VerifyOptions options;
  for (const char* id : kHeadline) options.algorithms.push_back(find_algorithm(id));
  options.cases = kCases;
  options.seed = kSeed;
  const auto backend = make_backend("thread", std::chrono::minutes(1), command);
  Progress progress(true);
  return verify(*backend, options,
                [&](std::int64_t done, std::int64_t total) { progress.show(done, total); });
}

std::string store(const std::vector<AlgorithmReport>& reports, const SweepOptions& options) {
  VerificationTable table{{}, kSeed, options.command_line};
  for (const AlgorithmReport& report : reports) {
    const Judgement worst = report.worst.highest();
    table.rows.push_back({report.algorithm->id, "thread", report.cases, report.skipped, worst.error,
                          worst.limit, worst.ratio, report.passed()});
  }
  const Environment environment = capture_environment_with_gpus();
  const std::string path = run_file_path(options.out_dir, environment, "verify-quick");
  write_verification_run(path, table, environment);
  return path;
}

std::string verification_text(const std::vector<AlgorithmReport>& reports,
                              const std::string& stored) {
  std::string text = fmt::format(
      "# verified on threads, forward and backward, against the double-precision reference\n"
      "# {:<20} {:>6} {:>11}  verdict\n",
      "algorithm", "cases", "error/limit");
  for (const AlgorithmReport& report : reports) {
    text += fmt::format("  {:<20} {:>6} {:>11.3f}  {}\n", report.algorithm->id, report.cases,
                        report.worst.highest().ratio, report.passed() ? "ok" : "FAILED");
    if (report.failure) text += report.failure->message + "\n";
  }
  return text + fmt::format("# stored: {}\n\n", stored);
}

nlohmann::ordered_json verification_json(const std::vector<AlgorithmReport>& reports) {
  auto rows = nlohmann::ordered_json::array();
  for (const AlgorithmReport& report : reports) {
    rows.push_back({{"id", report.algorithm->id},
                    {"cases", report.cases},
                    {"worst_ratio", report.worst.highest().ratio},
                    {"passed", report.passed()}});
  }
  return rows;
}

}  // namespace

void write_headline_timelines(const std::string& folder) {
  const Platform platform = find_platform("dgx_a100");
  const Shape shape{1, std::int64_t{1} << 21, 16, 16, 128, 128};
  for (const char* id : {"lasp2", "lasp1", "ring/contiguous"}) {
    const Algorithm* algorithm = find_algorithm(id);
    const bool linear = algorithm->family == Family::kLinear;
    const Problem problem = linear ? linear_problem(Module::kBasic, shape, DType::kBF16)
                                   : softmax_problem(shape, DType::kBF16, true);
    Timeline timeline(platform.node.devices);
    SimulationOptions options;
    options.timeline = &timeline;
    simulate(platform, *algorithm, problem, {64, platform.node.devices, 1}, options);
    std::string name = id;
    std::replace(name.begin(), name.end(), '/', '-');
    write_chrome_trace(
        (std::filesystem::path(folder) / ("headline-" + name + ".trace.json")).string(),
        timeline.take(), platform.node.devices,
        fmt::format("{}, one layer, 2048K tokens, 64 GPUs", id), "simulated");
  }
}

int reproduce_quick(const SweepOptions& options, bool json, Command& command) {
  const std::vector<AlgorithmReport> reports = verify_headline(command);
  const std::string stored = store(reports, options);
  if (!json) fmt::print("{}", verification_text(reports, stored));
  const std::vector<ReplayOutcome> outcomes =
      sweep(chosen_replays({std::begin(kItems), std::end(kItems)}), options,
            [&](const ReplayOutcome& outcome) {
              if (!json) fmt::print("{}", outcome_text(outcome, RowsShown::kExceptions));
            });
  write_headline_timelines(options.out_dir);
  const std::string page = (std::filesystem::path(options.out_dir) / "report.html").string();
  if (json) {
    nlohmann::ordered_json out{{"verification", verification_json(reports)}};
    for (const ReplayOutcome& outcome : outcomes) out["items"].push_back(outcome_json(outcome));
    out["summary"] = summary_json(outcomes);
    out["report"] = page;
    fmt::print("{}\n", out.dump(2));
  } else {
    fmt::print("{}", summary_text(outcomes));
  }
  const int reported = run_report({options.out_dir}, page);
  if (!json && reported == kOk) fmt::print("# report: {}\n", page);
  bool good = true;
  for (const AlgorithmReport& report : reports) good = good && report.passed();
  for (const ReplayOutcome& outcome : outcomes) good = good && outcome.broken.empty();
  return good ? reported : kFailed;
}

}  // namespace sp
