// seqpar compute: an algorithm as an oracle for other people's code.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>

#include "experiments/arguments.hpp"
#include "experiments/backends.hpp"
#include "harness/results/atomic_file.hpp"
#include "harness/results/problem_file.hpp"
#include "harness/results/result_file.hpp"
#include "harness/run/execute.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

struct Options {
  std::string algorithm, backend = "thread", platform, transport, problem, result;
  int ranks = 4, ranks_per_node = 1, splits = 1;
  double time_limit_s = 60;
};

int compute(const Options& options, Command& command) {
  const std::vector<const Algorithm*> chosen = parse_algorithms(options.algorithm);
  if (chosen.size() != 1)
    throw Error(ErrorKind::kUsage, "compute runs one algorithm; `seqpar list` shows all");
  const std::unique_ptr<Backend> backend = make_backend(
      options.backend,
      std::chrono::milliseconds(static_cast<std::int64_t>(options.time_limit_s * 1000)), command,
      options.platform, options.transport);
  const World world{options.ranks, options.ranks_per_node, options.splits};
  validate(world, *backend);
  const ProblemFile file = read_problem(options.problem);
  if (backend->leads()) require_writable(options.result);
  const Execution execution =
      execute(*backend, {}, *chosen.front(), file.problem, file.inputs, world);
  if (!backend->leads()) return kOk;
  ResultInfo info{chosen.front()->id, backend->name(), world.size, {}, {}};
  for (const Measured& cost : execution.ranks) {
    info.bytes_sent_per_rank.push_back(cost.forward.bytes_sent + cost.backward.bytes_sent);
    info.messages_per_rank.push_back(cost.forward.messages_sent + cost.backward.messages_sent);
  }
  write_result(options.result, file.problem, execution.outputs, info,
               capture_environment_with_gpus());
  fmt::print(stderr, "{} of {} on {} {} ranks -> {}\n", info.algorithm, describe(file.problem),
             world.size, backend->name(), options.result);
  return kOk;
}

}  // namespace

void add_compute(const CommandLine& app, Command& command) {
  const CommandLine sub =
      app.subcommand("compute", "Run one algorithm on a problem file and write its results");
  const auto options = std::make_shared<Options>();
  sub.option("--algorithm", options->algorithm, "Algorithm id, see `seqpar list`").required();
  sub.option("--backend", options->backend, "thread, mpi, cuda, emulated or sim").show_default();
  sub.option("--platform", options->platform,
             "Of --backend sim: a name of `seqpar list` or a file (default dgx_a100)");
  sub.option("--transport", options->transport,
             "Of --backend cuda and emulated: nccl or local (default nccl where there are as many "
             "GPUs)")
      .one_of({"nccl", "local"});
  sub.option("--ranks", options->ranks, "Number of ranks").show_default();
  sub.option("--ranks-per-node", options->ranks_per_node,
             "Ranks per node, for algorithms with a mesh")
      .show_default();
  sub.option("--splits", options->splits, "Pieces that a state of linear attention travels in")
      .between(1, 1 << 20)
      .show_default();
  sub.option("--timeout", options->time_limit_s, "Longest wait for a message, in seconds")
      .check(refuse_no_time)
      .show_default();
  sub.option("problem", options->problem, "Problem file (data/README.md)").required();
  sub.option("result", options->result, "Result file to write").required();
  sub.footer(
      "Example: seqpar compute --algorithm ring/zigzag --backend thread --ranks 8 problem.h5 "
      "result.h5");
  sub.callback([&command, options] {
    command.run = [&command, options] { return compute(*options, command); };
  });
}

}  // namespace sp
