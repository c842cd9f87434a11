// seqpar check: the verdict on somebody else's output against the double-precision reference.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "experiments/backends.hpp"
#include "experiments/commands.hpp"
#include "harness/compare/error_map.hpp"
#include "harness/compare/explain.hpp"
#include "harness/compare/oracle.hpp"
#include "harness/results/atomic_file.hpp"
#include "harness/results/problem_file.hpp"
#include "harness/results/result_file.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

struct Options {
  std::string problem, result;
  int roundings = 1;
  std::string operands = "accumulator";
  bool full = false;
  std::optional<std::int64_t> sample;
  int ranks = 0;
  std::string sharding, errors;
  bool json = false;
};

std::string word_of(const TensorVerdict& t) {
  return !t.passed() ? "FAILED" : t.decided ? "ok" : "not decided";
}

const char* word_of(const Verdict& verdict) {
  return !verdict.passed() ? "FAILED" : verdict.decided() ? "OK" : "NOT DECIDED";
}

constexpr const char* kUndecided = "half of what is right would be within the limits too";

void print_text(const Verdict& verdict, const Oracle& oracle, const std::string& algorithm,
                const std::vector<std::string>& explanations) {
  fmt::print("# verdict on {}\n", algorithm.empty() ? "a result of unknown origin" : algorithm);
  if (oracle.sampled())
    fmt::print("# sampled: {} of {} tokens, all heads, as sharply as all would be (--full: all)\n",
               oracle.tokens().size(), oracle.problem().shape.N);
  fmt::print("# {:<15} {:>10} {:>8} {:>11} {:>11} {:>9} {:>9} {:>9}  {}\n", "", "", "", "of the",
             "worst", "element", "error / ", "limit", "");
  fmt::print("# {:<15} {:>10} {:>8} {:>11} {:>11} {:>9} {:>9} {:>9}  {}\n", "tensor", "elements",
             "above", "error", "limit", "element", "row", "whole", "verdict");
  for (const TensorVerdict& t : verdict.tensors) {
    fmt::print("  {:<15} {:>10} {:>8} {:>11.3g} {:>11.3g} {:>9.3g} {:>9.3g} {:>9.3g}  {}\n", t.name,
               t.elements, t.failures, t.element.error, t.element.limit, t.element.ratio,
               t.row.ratio, t.whole.ratio, word_of(t));
  }
  for (const TensorVerdict& t : verdict.tensors) {
    if (!t.passed()) fmt::print("# {}\n", describe(t));
    if (t.passed() && !t.decided) fmt::print("# {}: {}\n", t.name, kUndecided);
  }
  for (const std::string& sentence : explanations) fmt::print("# looks like: {}\n", sentence);
  fmt::print("# {}\n", word_of(verdict));
}

void print_json(const Verdict& verdict, const Oracle& oracle, const std::string& algorithm,
                const std::vector<std::string>& explanations) {
  nlohmann::ordered_json out{
      {"algorithm", algorithm},
      {"passed", verdict.passed() && verdict.decided()},
      {"verdict", word_of(verdict)},
      {"sampled", oracle.sampled()},
      {"tokens", oracle.sampled() ? std::ssize(oracle.tokens()) : oracle.problem().shape.N}};
  for (const TensorVerdict& t : verdict.tensors) {
    out["tensors"].push_back({{"name", t.name},
                              {"elements", t.elements},
                              {"failures", t.failures},
                              {"row_failures", t.row_failures},
                              {"passed", t.passed()},
                              {"decided", t.decided},
                              {"error", t.element.error},
                              {"limit", t.element.limit},
                              {"ratio", t.element.ratio},
                              {"row_ratio", t.row.ratio},
                              {"whole_ratio", t.whole.ratio},
                              {"worst_index", t.index},
                              {"value", t.value},
                              {"expected", t.expected}});
  }
  out["looks_like"] = explanations;
  fmt::print("{}\n", out.dump(2));
}

std::optional<Sharding> parse_sharding(const std::string& name) {
  for (const Sharding sharding : {Sharding::kContiguous, Sharding::kStriped, Sharding::kZigzag})
    if (name == name_of(sharding)) return sharding;
  return std::nullopt;  // none was given: the command line allows no other names
}

int check(const Options& options) {
  const ProblemFile file = read_problem(options.problem);
  const ResultFile theirs = read_result(options.result);
  const Outputs& outputs = theirs.outputs;
  Inputs inputs = file.inputs;
  bool gradients = false;
  for (const auto x :
       {&Outputs::d_q, &Outputs::d_k, &Outputs::d_v, &Outputs::d_projection_k,
        &Outputs::d_projection_v, &Outputs::d_log_decay, &Outputs::d_gamma, &Outputs::d_beta})
    gradients = gradients || !(outputs.*x).absent();
  if (gradients && inputs.d_out.absent()) {
    throw Error(ErrorKind::kUsage, fmt::format("{} holds gradients but {} has no d_out",
                                               options.result, options.problem));
  }
  if (!gradients) inputs.d_out = {};
  const RunHint run{options.ranks, parse_sharding(options.sharding)};
  const Sampling sampling{
      .tokens = options.sample.value_or(0), .everything = options.full, .run = run};
  if (!options.errors.empty()) require_writable(options.errors);
  if (can_be_sampled(file.problem) && !options.sample) {
    constexpr double kWorthSaying = 5;
    const double seconds = seconds_of_truth(file.problem, gradients);
    if (seconds > kWorthSaying && (options.full || seconds <= sampling.seconds))
      fmt::print(stderr, "# comparing all tokens takes about {:.0f} s; --sample N compares fewer\n",
                 seconds);
    if (seconds > sampling.seconds && !options.full)
      fmt::print(stderr, "# comparing all tokens would take about {:.0f} s: sampled\n", seconds);
  }
  const Oracle oracle(file.problem, inputs, false,
                      options.operands == "storage" ? Operands::kStorage : Operands::kAccumulator,
                      sampling);
  const Verdict verdict = oracle.judge(outputs, options.roundings);
  const std::vector<std::string> explanations =
      verdict.passed() ? std::vector<std::string>{} : explain(oracle, outputs, verdict, run);
  if (!options.errors.empty())
    write_errors(options.errors, file.problem, error_map(oracle, outputs), theirs.info,
                 capture_environment_with_gpus());
  (options.json ? print_json : print_text)(verdict, oracle, theirs.info.algorithm, explanations);
  return verdict.passed() && verdict.decided() ? kOk : kFailed;
}

}  // namespace

void add_check(const CommandLine& app, Command& command) {
  const CommandLine sub =
      app.subcommand("check", "Compare a result file, from any program, with the reference");
  const auto options = std::make_shared<Options>();
  sub.option("problem", options->problem, "Problem file (data/README.md)").required();
  sub.option("result", options->result, "Result file: at least a data set `out`").required();
  sub.option(
         "--roundings", options->roundings,
         "How often a value passes through the storage type: 2 if partial results are stored in it")
      .between(1, 2)
      .show_default();
  sub.option("--operands", options->operands,
             "How probabilities and score gradients are multiplied: in the accumulator type, or "
             "rounded "
             "to the storage type first, as tensor cores take them")
      .one_of({"accumulator", "storage"})
      .show_default();
  const Option sample =
      sub.option(
             "--sample", options->sample,
             "Compare so many tokens, and those at borders; else all, if it takes a minute at most")
          .check([](const std::string& text) {
            return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos &&
                           text.find_first_not_of('0') != std::string::npos
                       ? std::string()
                       : "must be a whole number from 1 on";
          });
  sub.flag("--full", options->full, "Compare all tokens, however long it takes").excludes(sample);
  const Option ranks =
      sub.option("--ranks", options->ranks,
                 "Ranks of the run, whose chunks' ends are among the sampled tokens")
          .between(1, 65536);
  sub.option("--sharding", options->sharding,
             "How that run shared out the tokens: its ranks and chunks are named, too")
      .one_of({"contiguous", "striped", "zigzag"})
      .needs(ranks);
  sub.option("--diff", options->errors,
             "Write the errors of all compared elements to this file (data/README.md)");
  sub.flag("--json", options->json, "Machine-readable output");
  sub.footer("Example: seqpar check problem.h5 theirs.h5");
  sub.callback([&command, options] { command.run = [options] { return check(*options); }; });
}

}  // namespace sp
