// seqpar bench: times algorithms on a real back-end.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <chrono>
#include <memory>

#include "experiments/arguments.hpp"
#include "experiments/backends.hpp"
#include "experiments/bench_plan.hpp"
#include "experiments/bench_report.hpp"
#include "experiments/bench_sweep.hpp"
#include "experiments/commands.hpp"
#include "harness/trace/record_run.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

// Of the only row, if it is right; collective over the back-end.
void write_trace(Backend& backend, const BenchPlan& plan, const BenchWords& o,
                 const BenchRow& row) {
  if (!backend.agree(row.status == RowStatus::kOk)) {
    if (backend.leads()) say_no_timeline(o, row);
    return;
  }
  const auto [algorithm, module] = variants_of(plan).front();
  Case drawn{.problem = problem_of(plan, algorithm->family, module, plan.lengths.front()),
             .world = plan.worlds.front(),
             .value_seed = o.seed};
  Inputs inputs = make_inputs(drawn);
  if (o.forward_only) inputs.d_out = {};
  const std::vector<Span> spans = record_run(backend, *algorithm, drawn, inputs);
  if (backend.leads())
    write_chrome_trace(o.trace, spans, 0,
                       fmt::format("{}, {} ranks: {}", row.variant(), row.ranks, row.problem),
                       "measured");
}

int bench_command(const BenchWords& o, Command& command) {
  if (o.backend == "sim")
    throw Error(ErrorKind::kUsage,
                "back-end sim has no clock to measure; `seqpar simulate` predicts its times");
  if (!o.trace.empty() && o.backend != "thread" && o.backend != "mpi")
    throw Error(ErrorKind::kUsage,
                fmt::format("--trace cannot follow back-end {}; allowed: thread, mpi", o.backend));
  const std::unique_ptr<Backend> backend = make_backend(
      o.backend, std::chrono::milliseconds(static_cast<std::int64_t>(o.time_limit_s * 1000)),
      command, "", o.transport);
  const BenchPlan plan = plan_bench(o, *backend);
  if (!o.trace.empty()) require_one_run(plan);
  if (backend->leads()) require_outputs(o);
  const BenchTable table = bench_table(run_bench(*backend, plan, o), plan, o, command.line);
  int code = kOk;
  if (backend->leads()) {
    const Environment environment = capture_environment_with_gpus();
    fmt::print("{}", o.json ? bench_json(table, environment) : bench_text(table, environment));
    if (!o.out.empty()) write_bench_run(o.out, table, environment);
    code = bench_exit_code(table.rows, plan.floor);
  }
  if (!o.trace.empty()) write_trace(*backend, plan, o, table.rows.front());
  // Only the leader has the times; the others end with its code.
  if (!backend->agree(code != kFailed)) return kFailed;
  return backend->agree(code != kTooSlow) ? kOk : kTooSlow;
}

}  // namespace

void add_bench(const CommandLine& app, Command& command) {
  const CommandLine sub = app.subcommand("bench", "Time algorithms on a real back-end");
  const auto o = std::make_shared<BenchWords>();
  sub.option("--algorithm", o->algorithm, "Ids, comma-separated, or all").show_default();
  sub.option("--backend", o->backend, "thread, mpi, cuda or emulated").show_default();
  sub.option("--transport", o->transport,
             "Of --backend cuda and emulated: nccl or local (default nccl where there are as many "
             "GPUs)")
      .one_of({"nccl", "local"});
  sub.option("--ranks", o->ranks, "Rank counts: 8, 2,4,8, 1..9, 8:64:*2 (default 1,2,4,8)");
  sub.option("--ranks-per-node", o->ranks_per_node, "Ranks per node, for algorithms with a mesh")
      .show_default();
  sub.option("--splits", o->splits, "Pieces that a state travels in, for algorithms that cut it")
      .show_default();
  sub.option("-w,--warmups", o->warmups, "Repetitions before the first that counts").show_default();
  sub.option("-n,--repetitions", o->repetitions, "Repetitions that count").show_default();
  sub.flag("--forward-only", o->forward_only, "Skip the backward pass");
  sub.option("--floor", o->floor, "Exit with code 4 if a row stays below this percentage of ideal");
  sub.option("--timeout", o->time_limit_s, "Longest wait for a message, in seconds")
      .check(refuse_no_time)
      .show_default();
  sub.option("--out", o->out, "Also write a run file (HDF5, data/README.md)");
  sub.option("--trace", o->trace,
             "Also record one more repetition as a timeline (Chrome trace; opens in Perfetto)");
  sub.flag("--json", o->json, "Machine-readable output, as Google Benchmark has it");
  add_problem_options(sub, *o);
  sub.footer(
      "Ideal is the same problem on one rank divided by P, or by the cores if there are fewer.\n"
      "Example: seqpar bench --algorithm ring/zigzag,ulysses --ranks 2,4 --tokens 4K,8K -n 10");
  sub.callback(
      [&command, o] { command.run = [&command, o] { return bench_command(*o, command); }; });
}

}  // namespace sp
