// seqpar check: the verdict on somebody else's output against the double-precision reference.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "experiments/commands.hpp"
#include "harness/compare/oracle.hpp"
#include "harness/results/problem_file.hpp"
#include "harness/results/result_file.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

struct Options {
  std::string problem, result;
  int roundings = 1;
  bool json = false;
};

void print_text(const Verdict& verdict, const Oracle& oracle, const std::string& algorithm) {
  fmt::print("# verdict on {}\n", algorithm.empty() ? "a result of unknown origin" : algorithm);
  if (oracle.sampled()) fmt::print("# sampled: {} tokens, all heads\n", oracle.tokens().size());
  fmt::print("# {:<15} {:>10} {:>8} {:>11} {:>11} {:>9}  {}\n", "tensor", "elements", "above",
             "worst error", "limit", "err/limit", "verdict");
  for (const TensorVerdict& t : verdict.tensors) {
    fmt::print("  {:<15} {:>10} {:>8} {:>11.3g} {:>11.3g} {:>9.3g}  {}\n", t.name, t.elements,
               t.failures, t.error, t.limit, t.ratio, t.failures == 0 ? "ok" : "FAILED");
  }
  for (const TensorVerdict& t : verdict.tensors) {
    if (t.failures != 0) fmt::print("# {}\n", describe(t));
  }
  fmt::print("# {}\n", verdict.passed() ? "OK" : "FAILED");
}

void print_json(const Verdict& verdict, const Oracle& oracle, const std::string& algorithm) {
  nlohmann::ordered_json out{
      {"algorithm", algorithm}, {"passed", verdict.passed()}, {"sampled", oracle.sampled()}};
  for (const TensorVerdict& t : verdict.tensors) {
    out["tensors"].push_back({{"name", t.name},
                              {"elements", t.elements},
                              {"failures", t.failures},
                              {"error", t.error},
                              {"limit", t.limit},
                              {"ratio", t.ratio},
                              {"worst_index", t.index},
                              {"value", t.value},
                              {"expected", t.expected}});
  }
  fmt::print("{}\n", out.dump(2));
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
  const Oracle oracle(file.problem, inputs, false);
  const Verdict verdict = oracle.judge(outputs, options.roundings);
  (options.json ? print_json : print_text)(verdict, oracle, theirs.info.algorithm);
  return verdict.passed() ? kOk : kFailed;
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
  sub.flag("--json", options->json, "Machine-readable output");
  sub.footer("Example: seqpar check problem.h5 theirs.h5");
  sub.callback([&command, options] { command.run = [options] { return check(*options); }; });
}

}  // namespace sp
