// seqpar list: what there is.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/backends.hpp"
#include "optimized/algorithms/registry.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

bool is_valid(const Problem& problem) {
  try {
    validate(problem);
    return true;
  } catch (const Error&) {
    return false;
  }
}

// Asked of the algorithm itself, with a small problem that suits every module.
std::vector<std::string_view> modules_of(const Algorithm& algorithm) {
  std::vector<std::string_view> names;
  if (algorithm.family != Family::kLinear && algorithm.family != Family::kHybrid) return names;
  const World world{4};
  Problem problem;
  problem.shape = {.B = 1, .N = 64, .H = 4, .G = 4, .D = 8, .E = 8};
  problem.mask.causal = true;
  if (algorithm.family == Family::kHybrid) problem.layers = "LN";
  for (const Module module : kModules) {
    problem.module = module;
    problem.epsilon = default_epsilon(module);
    if (is_valid(problem) && algorithm.supports(problem, world)) names.push_back(name_of(module));
  }
  return names;
}

nlohmann::ordered_json entry_of(const Algorithm& algorithm) {
  nlohmann::ordered_json entry{{"id", algorithm.id},
                               {"title", algorithm.title},
                               {"paper", algorithm.paper},
                               {"pattern", algorithm.pattern},
                               {"family", name_of(algorithm.family)},
                               {"sharding", name_of(algorithm.sharding)},
                               {"directions", {"forward", "backward"}}};
  if (const auto modules = modules_of(algorithm); !modules.empty()) entry["modules"] = modules;
  return entry;
}

int list_json() {
  nlohmann::ordered_json out;
  for (const BackendInfo& backend : backends()) {
    out["backends"].push_back(
        {{"name", backend.name}, {"built", backend.built}, {"description", backend.description}});
  }
  for (const Algorithm* a : algorithms()) out["algorithms"].push_back(entry_of(*a));
  fmt::print("{}\n", out.dump(2));
  return kOk;
}

int list_text() {
  fmt::print("# {:<26} {:<18} {:<11}", "algorithm", "family", "sharding");
  for (const BackendInfo& backend : backends()) fmt::print(" {:<8}", backend.name);
  fmt::print(" {}\n", "pattern [modules of linear attention]");
  for (const Algorithm* a : algorithms()) {
    fmt::print("  {:<26} {:<18} {:<11}", a->id, name_of(a->family), name_of(a->sharding));
    for (const BackendInfo& backend : backends())
      fmt::print(" {:<8}", backend.built ? "fwd+bwd" : "-");
    const auto modules = modules_of(*a);
    fmt::print(" {}", a->pattern);
    if (!modules.empty()) fmt::print(" [{}]", fmt::join(modules, " "));
    fmt::print("\n");
  }
  return kOk;
}

// The status table of README.md. It tells what the project has, whatever this build left out.
int list_markdown() {
  constexpr std::array kColumns{"thread", "mpi", "cuda", "emulated", "sim"};
  std::string head = "| algorithm | reference |", rule = "| --- | --- |";
  std::string cells = " checked |";
  for (const char* column : kColumns) {
    const auto named = [&](const BackendInfo& backend) {
      return std::string_view(backend.name) == column;
    };
    head += fmt::format(" {} |", column);
    rule += " --- |";
    cells += std::any_of(backends().begin(), backends().end(), named) ? " fwd, bwd |" : " – |";
  }
  fmt::print("{}\n{}\n", head, rule);
  for (const Algorithm* a : algorithms()) fmt::print("| `{}` |{}\n", a->id, cells);
  return kOk;
}

}  // namespace

void add_list(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("list", "Algorithms, back-ends and directions");
  struct Options {
    bool json = false, markdown = false;
  };
  const auto o = std::make_shared<Options>();
  CLI::Option* json = sub->add_flag("--json", o->json, "Machine-readable output");
  sub->add_flag("--markdown", o->markdown, "The status table of README.md")->excludes(json);
  sub->footer("Example: seqpar list --json");
  sub->callback([&command, o] {
    command.run = [o] {
      if (o->json) return list_json();
      return o->markdown ? list_markdown() : list_text();
    };
  });
}

}  // namespace sp
