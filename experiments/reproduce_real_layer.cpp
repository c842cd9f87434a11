// A whole attention layer of LASP-2's length, computed for real: `seqpar
// reproduce lasp2/real-2048k`. SPDX-License-Identifier: Apache-2.0
#include "experiments/reproduce_real_layer.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "experiments/arguments.hpp"
#include "experiments/backends.hpp"
#include "experiments/progress.hpp"
#include "experiments/reproduce_sweep.hpp"
#include "harness/papers/real_layer.hpp"
#include "harness/papers/real_layer_file.hpp"
#include "harness/results/atomic_file.hpp"
#include "harness/results/run_file.hpp"
#include "optimized/algorithms/registry.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / 0x1p20; }

// Time of the second algorithm over that of the first.
double speed_ratio(const RealLayerResult& result) {
  return result.rows[1].total_s() / result.rows[0].total_s();
}

double worst_ratio(const RealLayerRow& row) {
  double most = 0;
  for (const double ratio : row.worst_ratio)
    if (!(ratio <= most)) most = ratio;
  return most;
}

double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

void print_text(const RealLayer& layer, const RealLayerResult& result, const std::string& path) {
  fmt::print("# seqpar reproduce {}: measured, {} thread ranks on {} cores\n", kRealLayer,
             layer.ranks, result.cores);
  fmt::print(
      "# one attention layer of Linear-Llama3-1B: {} heads of {}, batch 1, {} tokens, bf16, "
      "causal, basic, head by head\n",
      layer.heads, layer.head_size, layer.tokens);
  fmt::print("# verified: {} tokens of every head, forward and backward, against the reference\n",
             result.checked_tokens);
  fmt::print("# {:<14} {:>10} {:>11} {:>12} {:>15} {:>15} {:>9}  {}\n", "algorithm", "forward(s)",
             "backward(s)", "tokens/s", "peak/rank(MiB)", "sent/rank(MiB)", "err/limit", "verdict");
  for (const RealLayerRow& row : result.rows) {
    fmt::print("  {:<14} {:>10.2f} {:>11.2f} {:>12.0f} {:>15.1f} {:>15.2f} {:>9.3f}  {}\n",
               row.algorithm->id, sum(row.forward_s), sum(row.backward_s),
               static_cast<double>(layer.tokens) / row.total_s(), mebibytes(row.peak_bytes),
               mebibytes(row.bytes_sent * layer.heads), worst_ratio(row),
               row.passed ? "ok" : "FAILED");
  }
  for (const RealLayerRow& row : result.rows) {
    if (!row.passed) fmt::print("{} fails: {}\n", row.algorithm->id, row.worst);
  }
  fmt::print(
      "# speed of lasp2 over lasp1: {:.3f} (the paper's 1.152 is of a whole model on 64 A100)\n",
      speed_ratio(result));
  fmt::print("# peak memory of the process: {:.2f} GiB\n", mebibytes(result.process_bytes) / 1024);
  fmt::print("# stored: {}\n", path);
}

void print_json(const RealLayer& layer, const RealLayerResult& result, const std::string& path) {
  nlohmann::ordered_json out{{"item", kRealLayer},
                             {"kind", "measured"},
                             {"tokens", layer.tokens},
                             {"heads", layer.heads},
                             {"ranks", layer.ranks},
                             {"cores", result.cores},
                             {"checked_tokens", result.checked_tokens},
                             {"speed_ratio", speed_ratio(result)},
                             {"process_peak_bytes", result.process_bytes},
                             {"stored", path}};
  for (const RealLayerRow& row : result.rows) {
    out["algorithms"].push_back({{"id", row.algorithm->id},
                                 {"forward_s", row.forward_s},
                                 {"backward_s", row.backward_s},
                                 {"worst_ratio", worst_ratio(row)},
                                 {"peak_bytes", row.peak_bytes},
                                 {"bytes_sent", row.bytes_sent},
                                 {"passed", row.passed}});
  }
  fmt::print("{}\n", out.dump(2));
}

}  // namespace

int reproduce_real_layer(const RealLayerWords& o, bool json, const std::string& out_dir,
                         const Command& command) {
  RealLayer layer;
  layer.tokens = parse_size(o.tokens, "--tokens");
  if (layer.tokens < 1)
    throw Error(ErrorKind::kUsage, "--tokens 0 is too small; allowed: 1 or more");
  layer.heads = o.heads;
  layer.ranks = o.ranks;
  layer.seed = o.seed;
  layer.algorithms = {find_algorithm("lasp2"), find_algorithm("lasp1")};
  const Environment environment = capture_environment_with_gpus();
  std::string path = o.out;
  if (path.empty()) {
    make_results_folder(out_dir);
    path = run_file_path(out_dir, environment, kRealLayer);
  }
  require_writable(path);
  RealLayerResult result;
  {
    Progress progress(true);
    result = run_real_layer(
        layer, [&](std::int64_t done, std::int64_t total) { progress.show(done, total); });
  }
  write_real_layer(path, layer, result, command.line, environment);
  (json ? print_json : print_text)(layer, result, path);
  bool passed = true;
  for (const RealLayerRow& row : result.rows) passed = passed && row.passed;
  return passed ? kOk : kFailed;
}

void add_real_layer_options(const CommandLine& sub, RealLayerWords& o) {
  const std::string group = fmt::format("Of {} alone", kRealLayer);
  sub.option("--tokens", o.tokens, "Length of the sequence").show_default().group(group);
  sub.option("--heads", o.heads, "Heads of the layer").between(1, 1024).show_default().group(group);
  sub.option("--ranks", o.ranks, "Thread ranks")
      .between(1, kMostThreadRanks)
      .show_default()
      .group(group);
  sub.option("--seed", o.seed, "Seed of the values")
      .check(refuse_no_seed)
      .show_default()
      .group(group);
  sub.option("--out", o.out, "Run file to write (default: a new one in the results)").group(group);
}

void refuse_real_layer_options(const CommandLine& sub) {
  for (const char* flag : {"--tokens", "--heads", "--ranks", "--seed", "--out"}) {
    if (sub.has(flag))
      throw Error(ErrorKind::kUsage, fmt::format("{} is for {} alone; the others read their sizes "
                                                 "from a config, which --config replaces",
                                                 flag, kRealLayer));
  }
}

}  // namespace sp
