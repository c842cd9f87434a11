// SPDX-License-Identifier: Apache-2.0
#include "experiments/reproduce_measured.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "experiments/backends.hpp"
#include "experiments/bench_report.hpp"
#include "experiments/bench_sweep.hpp"
#include "experiments/reproduce_sweep.hpp"
#include "harness/config/config.hpp"
#include "harness/config/shipped.hpp"
#include "harness/results/run_file.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

namespace fs = std::filesystem;

const fs::path kConfigs = shipped("experiments/configs");
constexpr const char* kEnding = ".measured.toml";

Config config_of(const std::string& item, const std::string& path) {
  std::vector<std::string> known;
  for (const MeasuredItem& each : measured_items()) known.push_back(each.id);
  if (std::find(known.begin(), known.end(), item) == known.end())
    throw Error(ErrorKind::kUsage, fmt::format("item '{}' has no measured run; allowed: {}", item,
                                               fmt::join(known, ", ")));
  return load_config(path.empty() ? (kConfigs / (item + kEnding)).string() : path);
}

// What bench would have been told. The sizes of the other kind of machine are checked too.
BenchWords words_of(const Config& config, const Backend& backend) {
  BenchWords words;
  config.text("title");
  words.backend = backend.name();
  words.algorithm = fmt::format("{}", fmt::join(config.texts("algorithms"), ","));
  const auto whole = [&](const char* key, std::int64_t otherwise) {
    return config.integer(key, 1, 1'000'000, otherwise);
  };
  words.batch = fmt::format("{}", whole("batch", 1));
  words.heads = fmt::format("{}", config.integer("heads", 1, 1'000'000));
  if (config.has("kv_heads")) words.kv_heads = fmt::format("{}", whole("kv_heads", 1));
  words.head_size = fmt::format("{}", config.integer("head_size", 1, 1'000'000));
  words.dtype = config.choice("dtype", {"f32", "bf16", "f16"});
  words.causal = config.flag("causal", true) ? "on" : "off";
  words.module = config.text("module", "basic");
  words.repetitions = whole("repetitions", 5);
  words.ranks_per_node = whole("ranks_per_node", 1);
  for (const char* machine : {"cpu", "cuda"}) {
    if (!config.has(machine)) continue;
    const Config sizes = config.table(machine);
    const std::vector<std::int64_t> tokens = sizes.sizes("tokens", 1);
    const std::vector<std::int64_t> ranks = sizes.integers("ranks", 1, kMostThreadRanks);
    for (const std::int64_t rank : ranks)
      if (rank % words.ranks_per_node != 0)
        sizes.refuse("ranks", fmt::format("an element is {}; allowed: each a multiple of "
                                          "ranks_per_node, {}",
                                          rank, words.ranks_per_node));
    if ((std::string(machine) == "cuda") != (words.backend == "cuda")) continue;
    words.tokens = fmt::format("{}", fmt::join(tokens, ","));
    std::vector<std::int64_t> there;
    for (const std::int64_t rank : ranks)
      if (rank <= backend.most_ranks()) there.push_back(rank);
    if (there.empty())
      throw Error(ErrorKind::kEnvironment,
                  fmt::format("{} needs {} ranks or more; back-end {} has {} here", config.file(),
                              *std::min_element(ranks.begin(), ranks.end()), backend.name(),
                              backend.most_ranks()));
    words.ranks = fmt::format("{}", fmt::join(there, ","));
  }
  config.finish();
  if (words.ranks.empty())
    throw Error(ErrorKind::kUsage,
                fmt::format("{} names no sizes for back-end {}", config.file(), backend.name()));
  return words;
}

// Equal work on ever more ranks: what they cost beyond one rank.
std::string overhead_text(const BenchTable& table) {
  constexpr const char* kRow = "{} {:<26} {:>5} {:>9} {:>6} {:>10} {:>10} {:>9} {:>10}\n";
  std::string text =
      "# equal work: ideal is the time on one rank of the same run, divided by P or by the cores "
      "if there are fewer, so that it is flat beyond them; cpu: processor time of all ranks over "
      "that of one\n";
  text +=
      fmt::format(kRow, '#', "algorithm", "P", "N", "cores", "time", "ideal", "overhead", "cpu");
  text += fmt::format(kRow, '#', "", "1", "1", "1", "ms", "ms", "%", "1");
  const auto cpu_s = [](const std::vector<PassRecord>& passes) {
    double sum = 0;
    for (const PassRecord& pass : passes) sum += summarize(pass.cpu_s).median;
    return sum;
  };
  for (const BenchRow& row : table.rows) {
    if (row.passes.empty() || row.one_rank.empty()) continue;
    const Score s = score(row);
    text += fmt::format(
        kRow, ' ', row.algorithm, row.ranks, row.tokens, row.cores, figure(1e3 * s.total.median),
        figure(10 * s.total.median * s.percent_of_ideal), number(1e4 / s.percent_of_ideal - 100, 1),
        figure(cpu_s(row.passes) / cpu_s(row.one_rank)));
  }
  return text;
}

}  // namespace

std::vector<MeasuredItem> measured_items() {
  std::vector<MeasuredItem> items;
  for (const auto& entry : fs::recursive_directory_iterator(kConfigs)) {
    const std::string name = fs::relative(entry.path(), kConfigs).generic_string();
    if (name.ends_with(kEnding))
      items.push_back({name.substr(0, name.size() - std::string(kEnding).size()),
                       load_config(entry.path().string()).text("title")});
  }
  std::sort(items.begin(), items.end(),
            [](const MeasuredItem& a, const MeasuredItem& b) { return a.id < b.id; });
  return items;
}

int reproduce_measured(const std::vector<std::string>& items, const std::string& backend_name,
                       const std::string& config_path, const std::string& out_dir, bool json,
                       Command& command) {
  if (backend_name != "thread" && backend_name != "mpi" && backend_name != "cuda")
    throw Error(
        ErrorKind::kUsage,
        fmt::format("back-end '{}' measures nothing that scales; allowed: thread, mpi, cuda",
                    backend_name));
  std::vector<std::pair<std::string, Config>> configs;
  for (const std::string& item : items) configs.emplace_back(item, config_of(item, config_path));
  if (items.empty()) {
    for (const MeasuredItem& item : measured_items())
      configs.emplace_back(item.id, config_of(item.id, ""));
  }
  const std::unique_ptr<Backend> backend =
      make_backend(backend_name, std::chrono::minutes(10), command);
  if (backend->leads()) make_results_folder(out_dir);
  int code = kOk;
  nlohmann::ordered_json out{{"kind", "measured"}, {"items", nlohmann::ordered_json::array()}};
  for (const auto& [item, config] : configs) {
    const BenchWords words = words_of(config, *backend);
    const BenchPlan plan = plan_bench(words, *backend);
    BenchTable table = bench_table(run_bench(*backend, plan, words), plan, words, command.line);
    if (!backend->leads()) continue;
    if (bench_exit_code(table.rows, {}) != kOk) code = kFailed;
    const Environment environment = capture_environment_with_gpus();
    table.config.insert(table.config.begin(), {"item", item});
    const std::string path =
        run_file_path(out_dir, environment, fmt::format("{}-measured-{}", item, backend_name));
    if (json) {
      nlohmann::ordered_json entry = nlohmann::ordered_json::parse(bench_json(table, environment));
      entry["item"] = item;
      entry["stored"] = path;
      out["items"].push_back(std::move(entry));
    } else {
      fmt::print("{}{}# stored: {}\n", bench_text(table, environment), overhead_text(table), path);
      std::fflush(stdout);
    }
    table.config.emplace_back("config_toml", config.verbatim());
    write_bench_run(path, table, environment);
  }
  if (json && backend->leads()) fmt::print("{}\n", out.dump(2));
  return backend->agree(code == kOk) ? kOk : kFailed;
}

}  // namespace sp
