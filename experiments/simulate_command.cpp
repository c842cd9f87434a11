// seqpar simulate: predicts what bench would measure on a platform.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include "experiments/arguments.hpp"
#include "experiments/bench_plan.hpp"
#include "experiments/commands.hpp"
#include "experiments/memory_report.hpp"
#include "experiments/progress.hpp"
#include "experiments/simulate_report.hpp"
#include "harness/cluster/simulation.hpp"
#include "harness/results/bench_file.hpp"
#include "harness/run/bench.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

struct SimulateWords {
  BenchWords bench;
  std::string platform = "dgx_a100", resident = "0";
  std::optional<std::int64_t> ranks_per_node;
  bool memory = false;
};

// Ranks per node are as many as divide both, unless said otherwise.
std::vector<World> worlds_of(const SimulateWords& o, const Platform& platform) {
  const int most = platform.devices();
  std::vector<int> ranks;
  if (o.bench.ranks.empty()) {
    for (const int size : {1, 2, 4, 8}) {
      if (size <= most && size % o.ranks_per_node.value_or(1) == 0) ranks.push_back(size);
    }
  } else {
    for (const int size : parse_ranks(o.bench.ranks)) {
      if (std::find(ranks.begin(), ranks.end(), size) == ranks.end()) ranks.push_back(size);
    }
    if (o.ranks_per_node) ranks = whole_nodes(ranks, static_cast<int>(*o.ranks_per_node), true);
  }
  std::vector<World> worlds;
  for (const int size : ranks) {
    if (size > most)
      throw Error(ErrorKind::kUsage,
                  fmt::format("ranks = {} do not fit platform {}; allowed: 1..{}", size,
                              platform.name, most));
    const int per_node = static_cast<int>(
        o.ranks_per_node.value_or(std::gcd(size, std::max(1, platform.node.devices))));
    worlds.push_back({size, per_node, static_cast<int>(o.bench.splits)});
  }
  if (worlds.empty())
    throw Error(ErrorKind::kUsage,
                fmt::format("--ranks-per-node {} divides none of the default --ranks; name some",
                            *o.ranks_per_node));
  return worlds;
}

class Simulation {
 public:
  Simulation(const Platform& platform, const BenchPlan& plan, const SimulateWords& o)
      : platform_(platform), plan_(plan), progress_(true) {
    options_.backward = !o.bench.forward_only;
    options_.resident_bytes = parse_size(o.resident, "--resident-bytes");
    splits_ = static_cast<int>(o.bench.splits);
    tells_memory_ = o.memory;
  }

  const std::string& memory() const { return memory_; }

  std::vector<BenchRow> run(Timeline* timeline) {
    options_.timeline = timeline;
    for_each_problem(plan_, [&](const Algorithm& algorithm, const Problem& problem) {
      add_rows(algorithm, problem);
    });
    return std::move(rows_);
  }

 private:
  void add_rows(const Algorithm& algorithm, const Problem& problem) {
    std::string refusal;
    try {
      validate(problem);  // the shape is fine; not every family takes every shape
    } catch (const Error& error) {
      refusal = error.what();
    }
    std::vector<PassRecord> one_rank;
    for (const World& world : plan_.worlds) {
      BenchRow row = empty_row(algorithm, "sim", problem, world.size);
      row.band = platform_.band;
      row.peak_flops = platform_.device.peak(problem.dtype);
      row.status = RowStatus::kSkipped;
      row.reason = refusal;
      if (refusal.empty()) {
        predict(row, algorithm, problem, world, options_);
        if (row.status == RowStatus::kOk && one_rank.empty())
          one_rank = alone(row, algorithm, problem);
        if (row.status == RowStatus::kOk) row.one_rank = one_rank;
      }
      if (tells_memory_ && (row.status == RowStatus::kOk || row.status == RowStatus::kOom))
        memory_ += memory_text(algorithm, problem, world, options_.backward);
      rows_.push_back(std::move(row));
      progress_.show(std::ssize(rows_), row_count(plan_));
    }
  }

  void predict(BenchRow& row, const Algorithm& algorithm, const Problem& problem,
               const World& world, const SimulationOptions& options) const {
    Prediction prediction;
    try {
      prediction = simulate(platform_, algorithm, problem, world, options);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kUsage) throw;
      prediction.status = RowStatus::kFailed;  // the others go on
      prediction.reason = error.what();
    }
    row.status = prediction.status;
    row.reason = prediction.reason;
    if (row.status != RowStatus::kOk) return;
    row.cores = world.size;
    std::vector<double> flops;
    for (const Measured& cost : prediction.ranks)
      flops.push_back(static_cast<double>(cost.forward.flops + cost.backward.flops));
    const double total = std::accumulate(flops.begin(), flops.end(), 0.0);
    row.flops_imbalance =
        total > 0 ? *std::max_element(flops.begin(), flops.end()) * world.size / total : 1;
    row.passes = {pass_of(prediction.forward, prediction.ranks, &Measured::forward)};
    if (options.backward)
      row.passes.push_back(pass_of(prediction.backward, prediction.ranks, &Measured::backward));
    const double busy = prediction.forward.compute_s + prediction.backward.compute_s;
    const double busiest = prediction.forward.busiest_s + prediction.backward.busiest_s;
    row.busy_imbalance = {busy > 0 ? busiest / busy : 1};
  }

  static PassRecord pass_of(const PassPrediction& predicted, const std::vector<Measured>& ranks,
                            MeasuredPass Measured::* pass) {
    PassRecord record{.time_s = {predicted.time_s}, .waiting_s = {predicted.exposed_s}};
    for (const Measured& rank : ranks) {
      const MeasuredPass& cost = rank.*pass;
      record.bytes_sent = std::max(record.bytes_sent, cost.bytes_sent);
      record.messages_sent = std::max(record.messages_sent, cost.messages_sent);
      record.peak_bytes = std::max(record.peak_bytes, cost.peak_bytes);
      record.flops += cost.flops;
    }
    return record;
  }

  // What ideal compares with: one device, whose memory shall not matter.
  std::vector<PassRecord> alone(const BenchRow& like, const Algorithm& algorithm,
                                const Problem& problem) const {
    const World world{1, 1, splits_};
    if (!algorithm.supports(problem, world)) return {};
    SimulationOptions options = options_;
    options.unlimited_memory = true;
    options.timeline = nullptr;
    BenchRow row = like;
    predict(row, algorithm, problem, world, options);
    return row.passes;
  }

  const Platform& platform_;
  const BenchPlan& plan_;
  Progress progress_;
  SimulationOptions options_;
  int splits_ = 1;
  bool tells_memory_ = false;
  std::string memory_;
  std::vector<BenchRow> rows_;
};

BenchTable table_of(std::vector<BenchRow> rows, const BenchPlan& plan, const SimulateWords& o,
                    const Platform& platform, const Command& command) {
  BenchTable table{std::move(rows), 1, !o.bench.forward_only, o.bench.seed, command.line, {},
                   "simulated"};
  table.config = problem_config(plan, o.bench);
  table.config.emplace_back("platform", platform.name);
  table.config.emplace_back("ranks_per_node", o.ranks_per_node
                                                  ? fmt::format("{}", *o.ranks_per_node)
                                                  : std::string("platform"));
  table.config.emplace_back("resident_bytes", o.resident);
  return table;
}

// Running out of memory is an answer; refusing everything is none.
int exit_code(const std::vector<BenchRow>& rows) {
  const auto any = [&](RowStatus status) {
    return std::any_of(rows.begin(), rows.end(),
                       [&](const BenchRow& row) { return row.status == status; });
  };
  if (any(RowStatus::kFailed)) return kFailed;
  return any(RowStatus::kOk) || any(RowStatus::kOom) ? kOk : kFailed;
}

int simulate_command(const SimulateWords& o, Command& command) {
  const Platform platform = find_platform(o.platform);
  if (o.ranks_per_node && (*o.ranks_per_node < 1 || *o.ranks_per_node > platform.devices()))
    throw Error(ErrorKind::kUsage, fmt::format("--ranks-per-node {} is impossible; allowed: 1..{}",
                                               *o.ranks_per_node, platform.devices()));
  const BenchPlan plan = plan_bench(o.bench, [&] { return worlds_of(o, platform); });
  if (plan.base.dtype == DType::kF64)
    throw Error(ErrorKind::kUsage, "--dtype f64 has no simulated kernels; allowed: f32, bf16, f16");
  if (!o.bench.trace.empty()) require_one_run(plan);
  if (o.memory && o.bench.json)
    throw Error(ErrorKind::kUsage, "--memory is a text; allowed: without --json");
  require_outputs(o.bench);
  const bool in_nodes = platform.node.wiring != Wiring::kTorus;
  Timeline timeline(in_nodes ? platform.node.devices : 0);
  Simulation simulation(platform, plan, o);
  std::vector<BenchRow> rows = simulation.run(o.bench.trace.empty() ? nullptr : &timeline);
  BenchTable table = table_of(std::move(rows), plan, o, platform, command);
  const Environment environment = capture_environment();
  fmt::print("{}", o.bench.json
                       ? simulation_json(table, platform, environment)
                       : simulation_text(table, platform, environment) + simulation.memory());
  if (!o.bench.out.empty()) {
    table.config.emplace_back("band_source", platform.band_source);
    table.config.emplace_back("platform_toml", platform.verbatim);
    write_bench_run(o.bench.out, table, environment);
  }
  if (!o.bench.trace.empty()) {
    const BenchRow& row = table.rows.front();
    if (row.status != RowStatus::kOk) {
      say_no_timeline(o.bench, row);
    } else {
      write_chrome_trace(o.bench.trace, timeline.take(), timeline.devices_per_node(),
                         fmt::format("{} on {}, {} ranks: {}", row.variant(), platform.name,
                                     row.ranks, row.problem),
                         "simulated");
    }
  }
  return exit_code(table.rows);
}

}  // namespace

void add_simulate(const CommandLine& app, Command& command) {
  const CommandLine sub = app.subcommand("simulate", "Predict algorithms on a platform");
  const auto o = std::make_shared<SimulateWords>();
  BenchWords& bench = o->bench;
  bench.tokens = "64K";
  bench.heads = "32";
  bench.head_size = "128";
  bench.dtype = "bf16";
  sub.option("--platform", o->platform, "A name that `seqpar list` shows, or a TOML file")
      .show_default();
  sub.option("--algorithm", bench.algorithm, "Ids, comma-separated, or all").show_default();
  sub.option("--ranks", bench.ranks, "Rank counts: 8, 2,4,8, 1..9, 8:64:*2 (default 1,2,4,8)");
  sub.option("--ranks-per-node", o->ranks_per_node,
             "Ranks per node, for algorithms with a mesh (default: the platform's)");
  sub.option("--splits", bench.splits, "Pieces that a state travels in, for algorithms that cut it")
      .show_default();
  sub.flag("--forward-only", bench.forward_only, "Skip the backward pass");
  sub.option("--resident-bytes", o->resident,
             "Bytes per device that the model around the attention takes, e.g. 20G")
      .show_default();
  sub.option("--out", bench.out, "Also write a run file (HDF5, data/README.md)");
  sub.option("--trace", bench.trace, "Also write the timeline (Chrome trace; opens in Perfetto)");
  sub.flag("--memory", o->memory, "Also list what the fullest rank holds at its highest");
  sub.flag("--json", bench.json, "Machine-readable output");
  add_problem_options(sub, bench);
  sub.footer(
      "Nothing is computed: the algorithms run without data, kernels and messages take the time "
      "that the platform's model gives them.\n"
      "Example: seqpar simulate --algorithm lasp2,ring/zigzag --ranks 64 --tokens 256K,1M");
  sub.callback(
      [&command, o] { command.run = [&command, o] { return simulate_command(*o, command); }; });
}

}  // namespace sp
