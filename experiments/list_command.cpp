// seqpar list: what there is.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

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
