// SPDX-License-Identifier: Apache-2.0
#include "experiments/bench_sweep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "experiments/commands.hpp"
#include "experiments/progress.hpp"
#include "harness/run/bench.hpp"
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
    for_each_problem(plan_, [&](const Algorithm& algorithm, const Problem& problem) {
      add_rows(algorithm, problem);
    });
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
      progress_.show(std::ssize(rows_), row_count(plan_));
    }
  }

  BenchRow time(const Algorithm& algorithm, const Problem& problem, const World& world) {
    const Case drawn{.problem = problem, .world = world, .value_seed = o_.seed};
    if (!algorithm.supports(problem, world)) return bench(backend_, algorithm, drawn, {}, options_);
    return bench(backend_, algorithm, drawn, inputs_of(drawn), options_);
  }

  void skip(const Algorithm& algorithm, const Problem& problem, const World& world,
            const std::string& reason) {
    BenchRow row = empty_row(algorithm, backend_.name(), problem, world.size);
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
  std::string drawn_;  // describes the problem of inputs_
  Inputs inputs_;
  std::vector<BenchRow> rows_;
};

}  // namespace

std::vector<BenchRow> run_bench(Backend& backend, const BenchPlan& plan, const BenchWords& words) {
  return Bench(backend, plan, words).run();
}

BenchTable bench_table(std::vector<BenchRow> rows, const BenchPlan& plan, const BenchWords& o,
                       const std::string& command_line) {
  BenchTable table{
      std::move(rows), static_cast<int>(o.repetitions), !o.forward_only, o.seed, command_line, {}};
  table.config = problem_config(plan, o);
  table.config.insert(table.config.end(), {{"ranks_per_node", fmt::format("{}", o.ranks_per_node)},
                                           {"warmups", fmt::format("{}", o.warmups)},
                                           {"repetitions", fmt::format("{}", o.repetitions)}});
  return table;
}

int bench_exit_code(const std::vector<BenchRow>& rows, const std::optional<double>& floor) {
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

}  // namespace sp
