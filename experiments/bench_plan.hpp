// What `seqpar bench` and `seqpar simulate` were told, and what they are to do.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "experiments/command_line.hpp"
#include "harness/results/bench_row.hpp"
#include "harness/run/backend.hpp"
#include "optimized/algorithms/algorithm.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

// As typed.
struct BenchWords {
  std::string algorithm = "all", backend = "thread", transport, ranks, tokens = "4K", batch = "1",
              heads = "8";
  std::string kv_heads, head_size = "64", value_head_size, projected = "256", dtype = "f32";
  std::string causal = "on", module = "basic", layers = "LLLN", floor, out, trace;
  std::int64_t warmups = 1, repetitions = 20, ranks_per_node = 1, splits = 1;
  std::uint64_t seed = 1;
  double time_limit_s = 600;
  bool forward_only = false, json = false;
};

struct BenchPlan {
  std::vector<const Algorithm*> algorithms;
  std::vector<Module> modules;
  std::vector<std::int64_t> lengths;
  std::vector<World> worlds;
  Problem base;  // softmax attention without its length
  std::int64_t projected = 0;
  std::string layers;           // of hybrid stacks
  std::optional<double> floor;  // percent of ideal
};

// The options that say what is computed.
void add_problem_options(const CommandLine& sub, BenchWords& words);

// Throws Error(kUsage) with what is allowed.
BenchPlan plan_bench(const BenchWords& words, const Backend& backend);
BenchPlan plan_bench(const BenchWords& words, const std::function<std::vector<World>()>& worlds);
// Every algorithm with the modules that it has; with the first where it has none.
std::vector<std::pair<const Algorithm*, Module>> variants_of(const BenchPlan& plan);
// One for each variant, length and world.
std::int64_t row_count(const BenchPlan& plan);
// Variants in order, each at all lengths. A problem need not be valid: see problem_of.
void for_each_problem(const BenchPlan& plan,
                      const std::function<void(const Algorithm&, const Problem&)>& visit);
// What its options resolve to, for tables and files.
std::vector<std::pair<std::string, std::string>> problem_config(const BenchPlan& plan,
                                                                const BenchWords& words);
// Refuses a plan of more than one row: a timeline shows one run.
void require_one_run(const BenchPlan& plan);
// Refuses files that could not be written, before anything is computed for them.
void require_outputs(const BenchWords& words);
// Says on stderr why --trace has left no file.
void say_no_timeline(const BenchWords& words, const BenchRow& row);
// The problem that an algorithm of this family is timed on. It need not be valid: not every family
// takes every shape and mask.
Problem problem_of(const BenchPlan& plan, Family family, Module module, std::int64_t length);

}  // namespace sp
