// SPDX-License-Identifier: Apache-2.0
#include "experiments/bench_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "experiments/arguments.hpp"
#include "harness/results/atomic_file.hpp"
#include "harness/run/execute.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorKind::kUsage, message); }

std::int64_t at_least_one(const std::string& text, const char* what) {
  const std::int64_t size = parse_size(text, what);
  if (size < 1) refuse(fmt::format("{} {} is too small; allowed: 1 or more", what, size));
  return size;
}

template <class T>
std::vector<T> without_repeats(const std::vector<T>& values) {
  std::vector<T> kept;
  for (const T& value : values) {
    if (std::find(kept.begin(), kept.end(), value) == kept.end()) kept.push_back(value);
  }
  return kept;
}

std::optional<double> parse_floor(const std::string& text) {
  if (text.empty()) return std::nullopt;
  char* end = nullptr;
  const double percent = std::strtod(text.c_str(), &end);
  if (*end != '\0' || !(percent >= 0 && percent <= 1e6))
    refuse(fmt::format("--floor '{}' is not a percentage of ideal; allowed: 0 to 1e6", text));
  return percent;
}

std::vector<World> worlds_of(const BenchWords& o, const Backend& backend) {
  std::vector<int> ranks;
  if (o.ranks.empty()) {
    for (const int size : {1, 2, 4, 8}) {
      if (size <= backend.most_ranks() && size % o.ranks_per_node == 0) ranks.push_back(size);
    }
    if (ranks.empty()) ranks.push_back(static_cast<int>(o.ranks_per_node));
  } else {
    ranks = without_repeats(parse_ranks(o.ranks));
    for (const int size : ranks) validate({size}, backend);
    ranks = whole_nodes(ranks, static_cast<int>(o.ranks_per_node), backend.leads());
  }
  std::vector<World> worlds;
  for (const int size : ranks) {
    worlds.push_back({size, static_cast<int>(o.ranks_per_node), static_cast<int>(o.splits)});
    validate(worlds.back(), backend);
  }
  return worlds;
}

}  // namespace

void add_problem_options(const CommandLine& sub, BenchWords& o) {
  const auto add = [&](const char* flag, std::string& value, const char* help) {
    return sub.option(flag, value, help).group("Problem");
  };
  add("--tokens", o.tokens, "Numbers of tokens N, e.g. 4K,8K").show_default();
  add("--batch", o.batch, "Batch B").show_default();
  add("--heads", o.heads, "Query heads H").show_default();
  add("--kv-heads", o.kv_heads, "Key/value heads G (default: H)");
  add("--head-size", o.head_size, "Head size D").show_default();
  add("--value-head-size", o.value_head_size, "Value head size E (default: D)");
  add("--dtype", o.dtype, "Storage type: f32, bf16, f16, f64").show_default();
  add("--causal", o.causal, "Causal mask: on or off").one_of({"on", "off"}).show_default();
  add("--module", o.module, "Modules of linear attention, comma-separated, or all").show_default();
  add("--layers", o.layers, "Hybrid stacks: one letter per layer, L linear, N softmax")
      .show_default();
  add("--projected", o.projected, "Linformer: length of the projected keys").show_default();
  sub.option("--seed", o.seed, "Seed of the random values")
      .check(refuse_no_seed)
      .show_default()
      .group("Problem");
}

BenchPlan plan_bench(const BenchWords& o, const Backend& backend) {
  return plan_bench(o, [&] { return worlds_of(o, backend); });
}

BenchPlan plan_bench(const BenchWords& o, const std::function<std::vector<World>()>& worlds) {
  constexpr std::int64_t kMost = 1'000'000;  // CLI11 turns larger numbers into 2^63 - 1
  const auto check = [&](const char* what, std::int64_t value, std::int64_t least) {
    if (value < least || value > kMost)
      refuse(fmt::format("{} {} is impossible; allowed: {}..{}", what, value, least, kMost));
  };
  check("--warmups", o.warmups, 0);
  check("--repetitions", o.repetitions, 1);
  check("--ranks-per-node", o.ranks_per_node, 1);
  check("--splits", o.splits, 1);
  BenchPlan plan;
  plan.algorithms = without_repeats(parse_algorithms(o.algorithm));
  plan.modules = without_repeats(parse_modules(o.module));
  for (const std::int64_t length : without_repeats(parse_sizes(o.tokens, "--tokens"))) {
    if (length < 1) refuse("--tokens 0 is nothing to time; allowed: 1 or more");
    plan.lengths.push_back(length);
  }
  Shape& s = plan.base.shape;
  s.B = at_least_one(o.batch, "--batch");
  s.H = at_least_one(o.heads, "--heads");
  s.G = o.kv_heads.empty() ? s.H : at_least_one(o.kv_heads, "--kv-heads");
  s.D = at_least_one(o.head_size, "--head-size");
  s.E = o.value_head_size.empty() ? s.D : at_least_one(o.value_head_size, "--value-head-size");
  plan.base.dtype = parse_dtype(o.dtype);
  plan.base.mask.causal = o.causal == "on";
  plan.base.scale = default_scale(s);
  plan.projected = at_least_one(o.projected, "--projected");
  plan.worlds = worlds();
  plan.layers = o.layers;
  if (plan.layers.find_first_not_of("LN") != std::string::npos)
    refuse(fmt::format("--layers '{}' is no stack; allowed: letters L (linear) and N (softmax)",
                       plan.layers));
  plan.floor = parse_floor(o.floor);
  for (const std::int64_t length : plan.lengths) {
    Problem longest = plan.base;
    longest.shape.N = length;
    validate(longest);
  }
  return plan;
}

std::vector<std::pair<const Algorithm*, Module>> variants_of(const BenchPlan& plan) {
  std::vector<std::pair<const Algorithm*, Module>> variants;
  for (const Algorithm* algorithm : plan.algorithms) {
    const bool has_module =
        algorithm->family == Family::kLinear || algorithm->family == Family::kHybrid;
    for (const Module module : plan.modules) {
      if (has_module || module == plan.modules.front()) variants.emplace_back(algorithm, module);
    }
  }
  return variants;
}

std::int64_t row_count(const BenchPlan& plan) {
  return std::ssize(variants_of(plan)) * std::ssize(plan.lengths) * std::ssize(plan.worlds);
}

void for_each_problem(const BenchPlan& plan,
                      const std::function<void(const Algorithm&, const Problem&)>& visit) {
  for (const auto& [algorithm, module] : variants_of(plan)) {
    for (const std::int64_t length : plan.lengths)
      visit(*algorithm, problem_of(plan, algorithm->family, module, length));
  }
}

std::vector<std::pair<std::string, std::string>> problem_config(const BenchPlan& plan,
                                                                const BenchWords& o) {
  const Shape& s = plan.base.shape;
  std::vector<std::pair<std::string, std::string>> config{
      {"B", fmt::format("{}", s.B)}, {"H", fmt::format("{}", s.H)},
      {"G", fmt::format("{}", s.G)}, {"D", fmt::format("{}", s.D)},
      {"E", fmt::format("{}", s.E)}, {"dtype", std::string(name_of(plan.base.dtype))},
      {"causal", o.causal},          {"splits", fmt::format("{}", o.splits)}};
  const auto any = [&](Family family) {
    return std::any_of(plan.algorithms.begin(), plan.algorithms.end(),
                       [&](const Algorithm* algorithm) { return algorithm->family == family; });
  };
  if (any(Family::kProjectedSoftmax))
    config.emplace_back("projected", fmt::format("{}", plan.projected));
  if (any(Family::kHybrid)) config.emplace_back("layers", plan.layers);
  return config;
}

void require_one_run(const BenchPlan& plan) {
  const std::int64_t runs = row_count(plan);
  if (runs != 1)
    refuse(fmt::format("--trace shows one run, not {}; name one --algorithm, --tokens and --ranks",
                       runs));
}

void require_outputs(const BenchWords& words) {
  if (!words.out.empty() && words.out == words.trace)
    refuse(fmt::format("--out and --trace are both {}; allowed: two files", words.out));
  for (const std::string& path : {words.out, words.trace})
    if (!path.empty()) require_writable(path);
}

void say_no_timeline(const BenchWords& words, const BenchRow& row) {
  fmt::print(stderr, "seqpar: {} was not written: the run ended with status {}\n", words.trace,
             name_of(row.status));
}

Problem problem_of(const BenchPlan& plan, Family family, Module module, std::int64_t length) {
  Problem problem = plan.base;
  problem.shape.N = length;
  if (family == Family::kProjectedSoftmax) {
    problem.projected = plan.projected;
    problem.mask = {};
  }
  if (family == Family::kLinear || family == Family::kHybrid) {
    problem.module = module;
    problem.epsilon = default_epsilon(module);
    if (family == Family::kHybrid) problem.layers = plan.layers;
    if (family == Family::kLinear) problem.scale = 1;
  }
  return problem;
}

}  // namespace sp
