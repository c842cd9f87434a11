// seqpar list: what there is.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "experiments/backends.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp {
namespace {

const char* name_of(Family family) {
  return family == Family::kSoftmax ? "softmax" : "projected softmax";
}

int list_json() {
  nlohmann::ordered_json out;
  for (const BackendInfo& backend : backends()) {
    out["backends"].push_back(
        {{"name", backend.name}, {"built", backend.built}, {"description", backend.description}});
  }
  for (const Algorithm* a : algorithms()) {
    out["algorithms"].push_back({{"id", a->id},
                                 {"title", a->title},
                                 {"paper", a->paper},
                                 {"pattern", a->pattern},
                                 {"family", name_of(a->family)},
                                 {"sharding", name_of(a->sharding)},
                                 {"directions", {"forward", "backward"}}});
  }
  fmt::print("{}\n", out.dump(2));
  return kOk;
}

int list_text() {
  fmt::print("# {:<26} {:<18} {:<11}", "algorithm", "family", "sharding");
  for (const BackendInfo& backend : backends()) fmt::print(" {:<8}", backend.name);
  fmt::print(" {}\n", "pattern");
  for (const Algorithm* a : algorithms()) {
    fmt::print("  {:<26} {:<18} {:<11}", a->id, name_of(a->family), name_of(a->sharding));
    for (const BackendInfo& backend : backends())
      fmt::print(" {:<8}", backend.built ? "fwd+bwd" : "-");
    fmt::print(" {}\n", a->pattern);
  }
  return kOk;
}

}  // namespace

void add_list(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("list", "Algorithms, back-ends and directions");
  const auto json = std::make_shared<bool>(false);
  sub->add_flag("--json", *json, "Machine-readable output");
  sub->footer("Example: seqpar list --json");
  sub->callback(
      [&command, json] { command.run = [json] { return *json ? list_json() : list_text(); }; });
}

}  // namespace sp
