// seqpar list: what there is.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/backends.hpp"
#include "experiments/cost_table.hpp"
#include "experiments/reproduce_measured.hpp"
#include "harness/cluster/platform.hpp"
#include "harness/papers/replay.hpp"
#include "harness/run/modules.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp {
namespace {

std::vector<std::string_view> modules_of(const Algorithm& algorithm) {
  std::vector<std::string_view> names;
  for (const Module module : modules_served(algorithm)) names.push_back(name_of(module));
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
    out["backends"].push_back({{"name", backend.name},
                               {"built", backend.built()},
                               {"description", backend.description},
                               {"absence", backend.absence}});
  }
  for (const Algorithm* a : algorithms()) out["algorithms"].push_back(entry_of(*a));
  for (const std::string& name : platform_names()) {
    const Platform platform = find_platform(name);
    out["platforms"].push_back({{"name", platform.name},
                                {"title", platform.title},
                                {"devices", platform.devices()},
                                {"band", platform.band},
                                {"band_source", platform.band_source}});
  }
  for (const ReplayItem* item : replay_items())
    out["experiments"].push_back(
        {{"id", item->id}, {"title", item->title}, {"paper", item->paper}});
  for (const MeasuredItem& item : measured_items())
    out["measured"].push_back({{"id", item.id}, {"title", item.title}});
  fmt::print("{}\n", out.dump(2));
  return kOk;
}

void print_platforms() {
  fmt::print("\n# {:<26} {:>7} {:>6} {}\n", "platform of simulate", "devices", "±band", "title");
  for (const std::string& name : platform_names()) {
    const Platform platform = find_platform(name);
    fmt::print("  {:<26} {:>7} {:>4.0f} % {}\n", platform.name, platform.devices(),
               100 * platform.band, platform.title);
  }
}

void print_measured() {
  fmt::print("\n# {:<26} {}\n", "reproduce --backend", "title");
  for (const MeasuredItem& item : measured_items())
    fmt::print("  {:<26} {}\n", item.id, item.title);
}

void print_experiments() {
  fmt::print("\n# {:<26} {}\n", "experiment of reproduce", "title");
  for (const ReplayItem* item : replay_items()) fmt::print("  {:<26} {}\n", item->id, item->title);
}

int list_text() {
  fmt::print("# {:<26} {:<18} {:<11}", "algorithm", "family", "sharding");
  for (const BackendInfo& backend : backends()) fmt::print(" {:<8}", backend.name);
  fmt::print(" {}\n", "pattern [modules of linear attention]");
  for (const Algorithm* a : algorithms()) {
    fmt::print("  {:<26} {:<18} {:<11}", a->id, name_of(a->family), name_of(a->sharding));
    for (const BackendInfo& backend : backends())
      fmt::print(" {:<8}", backend.built() ? "fwd+bwd" : "-");
    const auto modules = modules_of(*a);
    fmt::print(" {}", a->pattern);
    if (!modules.empty()) fmt::print(" [{}]", fmt::join(modules, " "));
    fmt::print("\n");
  }
  for (const BackendInfo& backend : backends())
    if (!backend.built()) fmt::print("# {} is not built: {}\n", backend.name, backend.absence);
  print_platforms();
  print_experiments();
  print_measured();
  return kOk;
}

// The status of README.md. It tells what the project has, whatever this build left out: all
// algorithms on all back-ends, which is a rule and no table.
int list_markdown() {
  std::map<std::string_view, std::vector<std::string>> families;
  for (const Algorithm* a : algorithms())
    families[name_of(a->family)].push_back(fmt::format("`{}`", a->id));
  std::vector<std::string> run;
  for (const BackendInfo& backend : backends()) {
    if (std::string_view(backend.name) != "cuda") run.push_back(backend.name);
  }
  fmt::print(
      "All {} algorithms are checked against the reference, and run, forward and backward, on\n{}; "
      "all are compiled for cuda.\n\n| family | algorithms |\n| --- | --- |\n",
      algorithms().size(), fmt::join(run, ", "));
  for (const Family family :
       {Family::kSoftmax, Family::kProjectedSoftmax, Family::kLinear, Family::kHybrid})
    fmt::print("| {} | {} |\n", name_of(family), fmt::join(families[name_of(family)], ", "));
  return kOk;
}

}  // namespace

void add_list(const CommandLine& app, Command& command) {
  const CommandLine sub =
      app.subcommand("list", "Algorithms, back-ends, directions, platforms and experiments");
  struct Options {
    bool json = false, markdown = false;
    std::string costs;
  };
  const auto o = std::make_shared<Options>();
  const Option json = sub.flag("--json", o->json, "Machine-readable output");
  sub.flag("--markdown", o->markdown, "The status of README.md").excludes(json);
  sub.option("--costs", o->costs, "The example of optimized/README.md: softmax or linear")
      .one_of({"softmax", "linear"})
      .excludes(json);
  sub.footer("Example: seqpar list --json");
  sub.callback([&command, o] {
    command.run = [o] {
      if (o->json) return list_json();
      if (!o->costs.empty()) {
        fmt::print("{}", cost_table(o->costs == "linear"));
        return static_cast<int>(kOk);
      }
      return o->markdown ? list_markdown() : list_text();
    };
  });
}

}  // namespace sp
