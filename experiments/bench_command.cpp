// seqpar bench: times algorithms on a real back-end.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <optional>

#include "experiments/arguments.hpp"
#include "experiments/backends.hpp"
#include "experiments/bench_plan.hpp"
#include "experiments/bench_report.hpp"
#include "experiments/commands.hpp"
#include "experiments/progress.hpp"
#include "harness/run/bench.hpp"
#include "harness/run/execute.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

// One algorithm on one problem: all its numbers of ranks, and one rank for comparison.
class Bench {
 public:
  Bench(Backend& backend, const BenchPlan& plan, const BenchWords& o)
      : backend_(backend), plan_(plan), o_(o), progress_(backend.leads()) {
    options_ = {static_cast<int>(o.warmups), static_cast<int>(o.repetitions), !o.forward_only, {}};
  }

  std::vector<BenchRow> run() {
    std::vector<std::pair<const Algorithm*, Module>> variants;
    for (const Algorithm* algorithm : plan_.algorithms) {
      const bool has_module =
          algorithm->family == Family::kLinear || algorithm->family == Family::kHybrid;
      for (const Module module : plan_.modules) {
        if (has_module || module == plan_.modules.front()) variants.emplace_back(algorithm, module);
      }
    }
    total_ = variants.size() * plan_.lengths.size() * plan_.worlds.size();
    for (const auto& [algorithm, module] : variants) {
      for (const std::int64_t length : plan_.lengths)
        add_rows(*algorithm, problem_of(plan_, algorithm->family, module, length));
    }
    return std::move(rows_);
  }

 private:
  void add_rows(const Algorithm& algorithm, const Problem& problem) {
    try {
      validate(problem);  // the shape is fine; not every family takes every shape
    } catch (const Error& error) {
      for (const World& world : plan_.worlds) skip(algorithm, problem, world, error.what());
      return;
    }
    const auto supported = [&](const World& world) {
      return algorithm.supports(problem, world).has_value();
    };
    const World alone{1, 1, static_cast<int>(o_.splits)};
    std::optional<BenchRow> one_rank;
    if (supported(alone) && std::any_of(plan_.worlds.begin(), plan_.worlds.end(), supported))
      one_rank = time(algorithm, problem, alone);
    for (const World& world : plan_.worlds) {
      const bool again = world.size == 1 && one_rank;
      rows_.push_back(again ? *one_rank : time(algorithm, problem, world));
      if (one_rank) rows_.back().one_rank = one_rank->passes;
      progress_.show(std::ssize(rows_), static_cast<std::int64_t>(total_));
    }
  }

  BenchRow time(const Algorithm& algorithm, const Problem& problem, const World& world) {
    const Case drawn{.problem = problem, .world = world, .value_seed = o_.seed};
    if (!algorithm.supports(problem, world)) return bench(backend_, algorithm, drawn, {}, options_);
    return bench(backend_, algorithm, drawn, inputs_of(drawn), options_);
  }

  void skip(const Algorithm& algorithm, const Problem& problem, const World& world,
            const std::string& reason) {
    BenchRow row{.algorithm = algorithm.id,
                 .backend = backend_.name(),
                 .module = problem.module ? std::string(name_of(*problem.module)) : "",
                 .tokens = problem.shape.N,
                 .ranks = world.size,
                 .problem = describe(problem)};
    row.status = RowStatus::kSkipped;
    row.reason = reason;
    rows_.push_back(std::move(row));
  }

  // Drawn once for all rows that follow each other on one problem.
  const Inputs& inputs_of(const Case& drawn) {
    const std::string name = describe(drawn.problem);
    if (name != drawn_) {
      inputs_ = {};
      inputs_ = make_inputs(drawn);
      if (o_.forward_only) inputs_.d_out = {};
      drawn_ = name;
    }
    return inputs_;
  }

  Backend& backend_;
  const BenchPlan& plan_;
  const BenchWords& o_;
  Progress progress_;
  BenchOptions options_;
  std::size_t total_ = 0;  // rows
  std::string drawn_;      // describes the problem of inputs_
  Inputs inputs_;
  std::vector<BenchRow> rows_;
};

BenchTable table_of(std::vector<BenchRow> rows, const BenchPlan& plan, const BenchWords& o,
                    const Command& command) {
  const Shape& s = plan.base.shape;
  BenchTable table{
      std::move(rows), static_cast<int>(o.repetitions), !o.forward_only, o.seed, command.line, {}};
  table.config = {{"B", fmt::format("{}", s.B)},
                  {"H", fmt::format("{}", s.H)},
                  {"G", fmt::format("{}", s.G)},
                  {"D", fmt::format("{}", s.D)},
                  {"E", fmt::format("{}", s.E)},
                  {"dtype", std::string(name_of(plan.base.dtype))},
                  {"causal", o.causal},
                  {"ranks_per_node", fmt::format("{}", o.ranks_per_node)},
                  {"splits", fmt::format("{}", o.splits)},
                  {"warmups", fmt::format("{}", o.warmups)},
                  {"repetitions", fmt::format("{}", o.repetitions)}};
  const auto any = [&](Family family) {
    return std::any_of(plan.algorithms.begin(), plan.algorithms.end(),
                       [&](const Algorithm* algorithm) { return algorithm->family == family; });
  };
  if (any(Family::kProjectedSoftmax))
    table.config.emplace_back("projected", fmt::format("{}", plan.projected));
  if (any(Family::kHybrid)) table.config.emplace_back("layers", plan.layers);
  return table;
}

int exit_code(const std::vector<BenchRow>& rows, const std::optional<double>& floor) {
  bool measured = false, slow = false;
  for (const BenchRow& row : rows) {
    if (row.status != RowStatus::kOk && row.status != RowStatus::kSkipped) return kFailed;
    if (row.status != RowStatus::kOk) continue;
    measured = true;
    slow = slow || (floor && !(score(row).percent_of_ideal >= *floor));
  }
  if (!measured) return kFailed;
  return slow ? kTooSlow : kOk;
}

int bench_command(const BenchWords& o, Command& command) {
  const std::unique_ptr<Backend> backend = make_backend(
      o.backend, std::chrono::milliseconds(static_cast<std::int64_t>(o.time_limit_s * 1000)),
      command);
  const BenchPlan plan = plan_bench(o, *backend);
  const BenchTable table = table_of(Bench(*backend, plan, o).run(), plan, o, command);
  int code = kOk;
  if (backend->leads()) {
    const Environment environment = capture_environment_with_gpus();
    fmt::print("{}", o.json ? bench_json(table, environment) : bench_text(table, environment));
    if (!o.out.empty()) write_bench_run(o.out, table, environment);
    code = exit_code(table.rows, plan.floor);
  }
  // Only the leader has the times; the others end with its code.
  if (!backend->agree(code != kFailed)) return kFailed;
  return backend->agree(code != kTooSlow) ? kOk : kTooSlow;
}

void add_problem_options(CLI::App& sub, BenchWords& o) {
  const auto add = [&](const char* flag, std::string& value, const char* help) {
    return sub.add_option(flag, value, help)->group("Problem");
  };
  add("--tokens", o.tokens, "Numbers of tokens N, e.g. 4K,8K")->capture_default_str();
  add("--batch", o.batch, "Batch B")->capture_default_str();
  add("--heads", o.heads, "Query heads H")->capture_default_str();
  add("--kv-heads", o.kv_heads, "Key/value heads G (default: H)");
  add("--head-size", o.head_size, "Head size D")->capture_default_str();
  add("--value-head-size", o.value_head_size, "Value head size E (default: D)");
  add("--dtype", o.dtype, "Storage type: f32, bf16, f16, f64")->capture_default_str();
  add("--causal", o.causal, "Causal mask: on or off")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  add("--module", o.module, "Modules of linear attention, comma-separated, or all")
      ->capture_default_str();
  add("--layers", o.layers, "Hybrid stacks: one letter per layer, L linear, N softmax")
      ->capture_default_str();
  add("--projected", o.projected, "Linformer: length of the projected keys")->capture_default_str();
  sub.add_option("--seed", o.seed, "Seed of the random values")
      ->check(refuse_no_seed)
      ->capture_default_str()
      ->group("Problem");
}

}  // namespace

void add_bench(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("bench", "Time algorithms on a real back-end");
  const auto o = std::make_shared<BenchWords>();
  sub->add_option("--algorithm", o->algorithm, "Ids, comma-separated, or all")
      ->capture_default_str();
  sub->add_option("--backend", o->backend, "thread, mpi, cuda or emulated")->capture_default_str();
  sub->add_option("--ranks", o->ranks, "Rank counts: 8, 2,4,8, 1..9, 8:64:*2 (default 1,2,4,8)");
  sub->add_option("--ranks-per-node", o->ranks_per_node,
                  "Ranks per node, for algorithms with a mesh")
      ->capture_default_str();
  sub->add_option("--splits", o->splits,
                  "Pieces that a state travels in, for algorithms that cut it")
      ->capture_default_str();
  sub->add_option("-w,--warmups", o->warmups, "Repetitions before the first that counts")
      ->capture_default_str();
  sub->add_option("-n,--repetitions", o->repetitions, "Repetitions that count")
      ->capture_default_str();
  sub->add_flag("--forward-only", o->forward_only, "Skip the backward pass");
  sub->add_option("--floor", o->floor,
                  "Exit with code 4 if a row stays below this percentage of ideal");
  sub->add_option("--timeout", o->time_limit_s, "Longest wait for a message, in seconds")
      ->check(refuse_no_time)
      ->capture_default_str();
  sub->add_option("--out", o->out, "Also write a run file (HDF5, data/README.md)");
  sub->add_flag("--json", o->json, "Machine-readable output, as Google Benchmark has it");
  add_problem_options(*sub, *o);
  sub->footer(
      "Ideal is the same problem on one rank divided by P, or by the cores if there are fewer.\n"
      "Example: seqpar bench --algorithm ring/zigzag,ulysses --ranks 2,4 --tokens 4K,8K -n 10");
  sub->callback(
      [&command, o] { command.run = [&command, o] { return bench_command(*o, command); }; });
}

}  // namespace sp
