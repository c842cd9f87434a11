// seqpar reproduce: replays items of papers, says what came out, and keeps it.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "experiments/commands.hpp"
#include "experiments/reproduce_measured.hpp"
#include "experiments/reproduce_quick.hpp"
#include "experiments/reproduce_real_layer.hpp"
#include "experiments/reproduce_sweep.hpp"
#include "experiments/reproduce_text.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr const char* kQuick = "quick";

struct Options {
  std::vector<std::string> items;
  std::string config, out_dir = "data/results", backend = "sim";
  bool all = false, resume = false, json = false;
  RealLayerWords real_layer;
};

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(ErrorKind::kUsage, message);
}

bool named(const Options& o, const char* word) {
  return std::find(o.items.begin(), o.items.end(), word) != o.items.end();
}

int reproduce_sweep(const std::vector<const ReplayItem*>& items, const SweepOptions& options,
                    bool json) {
  const RowsShown shown = items.size() == 1 ? RowsShown::kAll : RowsShown::kExceptions;
  const std::vector<ReplayOutcome> outcomes =
      sweep(items, options, [&](const ReplayOutcome& outcome) {
        if (json) return;
        fmt::print("{}", outcome_text(outcome, shown));
        std::fflush(stdout);
      });
  if (json) {
    nlohmann::ordered_json out;
    out["items"] = nlohmann::ordered_json::array();
    for (const ReplayOutcome& outcome : outcomes) out["items"].push_back(outcome_json(outcome));
    out["summary"] = summary_json(outcomes);
    fmt::print("{}\n", out.dump(2));
  } else {
    if (outcomes.size() > 1) fmt::print("{}", summary_text(outcomes));
  }
  const bool broken = std::any_of(outcomes.begin(), outcomes.end(),
                                  [](const ReplayOutcome& o) { return !o.broken.empty(); });
  return broken ? kFailed : kOk;
}

int reproduce(const Options& o, const CommandLine& sub, Command& command) {
  require(
      o.all || !o.items.empty(),
      fmt::format("nothing to reproduce; allowed: {}, items or papers of `seqpar list`, {}, --all",
                  kQuick, kRealLayer));
  require(!o.all || o.items.empty(), "--all with items; allowed: one of them");
  for (const char* alone : {kQuick, kRealLayer})
    require(!named(o, alone) || o.items.size() == 1,
            fmt::format("{} with other items; allowed: it alone", alone));
  if (o.backend != "sim") {
    require(!o.resume && !named(o, kQuick) && !named(o, kRealLayer),
            fmt::format("--backend {} measures; allowed: items that `seqpar list` shows for it, "
                        "without --resume",
                        o.backend));
    require(o.config.empty() || o.items.size() == 1,
            "--config of a measured run is a file; allowed: one item with it");
    refuse_real_layer_options(sub);
    return reproduce_measured(o.items, o.backend, o.config, o.out_dir, o.json, command);
  }
  if (named(o, kRealLayer)) {
    require(o.config.empty() && !o.resume,
            fmt::format("{} takes no --config or --resume; allowed: its own options", kRealLayer));
    return reproduce_real_layer(o.real_layer, o.json, o.out_dir, command);
  }
  refuse_real_layer_options(sub);
  const SweepOptions options{o.config, o.out_dir, o.resume, command.line};
  if (named(o, kQuick)) {
    require(o.config.empty(), fmt::format("{} takes no --config; name an item", kQuick));
    make_results_folder(o.out_dir);
    return reproduce_quick(options, o.json, command);
  }
  std::vector<const ReplayItem*> items;
  if (o.all) {
    items.assign(replay_items().begin(), replay_items().end());
  } else {
    items = chosen_replays(o.items);
  }
  require(o.config.empty() || items.size() == 1 || std::filesystem::is_directory(o.config),
          "--config of several items; allowed: a folder with PAPER/ITEM.toml, or one item");
  make_results_folder(o.out_dir);
  const int code = reproduce_sweep(items, options, o.json);
  if (o.all) write_headline_timelines(o.out_dir);
  return code;
}

}  // namespace

void add_reproduce(const CommandLine& app, Command& command) {
  const CommandLine sub =
      app.subcommand("reproduce", "Replay items of papers and keep the results");
  const auto o = std::make_shared<Options>();
  sub.option("item", o->items,
             fmt::format("Items (`seqpar list` names them), papers, {}: a minute of "
                         "everything, or {}: minutes of real computing",
                         kQuick, kRealLayer));
  sub.flag("--all", o->all, fmt::format("Every item but {}", kRealLayer));
  sub.option(
      "--config", o->config,
      "A file for one item, or a folder with PAPER/ITEM.toml (default: experiments/configs)");
  sub.option("--backend", o->backend,
             "sim predicts; thread, mpi and cuda measure the items that `seqpar list` shows")
      .show_default();
  sub.option("--out-dir", o->out_dir, "Folder of the results").show_default();
  sub.flag("--resume", o->resume,
           "Read what this version stored for the same config instead of running it again");
  sub.flag("--json", o->json, "Machine-readable output");
  add_real_layer_options(sub, o->real_layer);
  sub.footer(
      "Of one item all rows are shown, of several those that are not reproduced. Exit code 0: "
      "every\n"
      "item ended with a verdict, whichever; 1: an item broke, or a verification failed.\n"
      "Example: seqpar reproduce lasp2/layer-2048k");
  sub.callback([&command, o, sub] {
    command.run = [&command, o, sub] { return reproduce(*o, sub, command); };
  });
}

}  // namespace sp
