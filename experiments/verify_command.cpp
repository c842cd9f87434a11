// seqpar verify: random problems against the reference, on any back-end.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "experiments/arguments.hpp"
#include "experiments/backends.hpp"
#include "experiments/progress.hpp"
#include "experiments/verify_ledger.hpp"
#include "harness/results/run_file.hpp"
#include "harness/run/verify.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

// As typed; empty means drawn.
struct Options {
  std::string algorithm = "all", family, backend = "thread", platform, transport, ranks;
  std::string dtype, values, out, module, layers;
  std::string tokens, batch, heads, kv_heads, head_size, value_head_size, window, projected;
  std::string causal, segments;
  int ranks_per_node = 0, splits = 0;
  std::int64_t cases = 100;
  std::uint64_t seed = 1;
  std::optional<std::uint64_t> only_case, chaos;
  double time_limit_s = 60;
  bool forward_only = false, checked = false, json = false;
};

std::optional<std::int64_t> size_pin(const std::string& text, const char* what, std::int64_t least,
                                     std::string& flags) {
  if (text.empty()) return std::nullopt;
  const std::int64_t value = parse_size(text, what);
  if (value < least)
    throw Error(ErrorKind::kUsage,
                fmt::format("{} {} is too small; allowed: {} or more", what, value, least));
  flags += fmt::format(" {} {}", what, text);
  return value;
}

std::optional<bool> switch_pin(const std::string& text, const char* what, std::string& flags) {
  if (text.empty()) return std::nullopt;
  flags += fmt::format(" {} {}", what, text);
  return text == "on";
}

// The pins, and in `flags` the words that pin the same again.
Pins pins_of(const Options& o, std::string& flags) {
  Pins pins;
  if (!o.ranks.empty()) {
    pins.ranks = parse_ranks(o.ranks);
    flags += " --ranks " + o.ranks;
  }
  if (o.ranks_per_node > 0) {
    pins.ranks_per_node = o.ranks_per_node;
    flags += fmt::format(" --ranks-per-node {}", o.ranks_per_node);
  }
  pins.tokens = size_pin(o.tokens, "--tokens", 0, flags);
  pins.batch = size_pin(o.batch, "--batch", 0, flags);
  pins.heads = size_pin(o.heads, "--heads", 1, flags);
  pins.kv_heads = size_pin(o.kv_heads, "--kv-heads", 1, flags);
  pins.head_size = size_pin(o.head_size, "--head-size", 1, flags);
  pins.value_head_size = size_pin(o.value_head_size, "--value-head-size", 1, flags);
  pins.window = size_pin(o.window, "--window", 0, flags);
  pins.projected = size_pin(o.projected, "--projected", 1, flags);
  pins.causal = switch_pin(o.causal, "--causal", flags);
  pins.segments = switch_pin(o.segments, "--segments", flags);
  if (o.splits > 0) {
    pins.splits = o.splits;
    flags += fmt::format(" --splits {}", o.splits);
  }
  if (!o.module.empty() && o.module != "all") {
    pins.module = parse_module(o.module);
    flags += " --module " + o.module;
  }
  if (!o.layers.empty()) {
    pins.layers = o.layers;
    flags += " --layers " + o.layers;
  }
  if (!o.dtype.empty()) {
    pins.dtype = parse_dtype(o.dtype);
    flags += " --dtype " + o.dtype;
  }
  if (!o.values.empty()) {
    pins.values = parse_values(o.values);
    flags += " --values " + o.values;
  }
  return pins;
}

// The algorithms named, of the families named.
std::vector<const Algorithm*> chosen_algorithms(const Options& o) {
  std::vector<const Algorithm*> chosen = parse_algorithms(o.algorithm);
  if (o.family.empty()) return chosen;
  // Stacks hold linear layers: they belong to that family, and make one of their own.
  std::erase_if(chosen, [&](const Algorithm* a) {
    const bool stack = a->family == Family::kHybrid && o.family == name_of(Family::kLinear);
    return name_of(a->family) != o.family && !stack;
  });
  if (chosen.empty())
    throw Error(ErrorKind::kUsage, fmt::format("--algorithm {} names no algorithm of family {}",
                                               o.algorithm, o.family));
  return chosen;
}

std::string row_name(const AlgorithmReport& row) {
  return row.module ? fmt::format("{} {}", row.algorithm->id, name_of(*row.module))
                    : row.algorithm->id;
}

VerificationTable table_of(const std::vector<AlgorithmReport>& reports, const Options& o,
                           const Command& command) {
  VerificationTable table{{}, o.seed, command.line};
  for (const AlgorithmReport& r : reports) {
    if (!r.refusal.empty()) continue;
    const Judgement worst = r.worst.highest();
    table.rows.push_back({row_name(r), o.backend, r.cases, r.skipped, worst.error, worst.limit,
                          worst.ratio, r.passed()});
  }
  return table;
}

void print_text(const std::vector<AlgorithmReport>& reports, const Options& o) {
  fmt::print("# seqpar verify: back-end {}, seed {}, {}\n", o.backend, o.seed,
             o.forward_only ? "forward" : "forward and backward");
  fmt::print("# {:<28} {:>6} {:>8} {:>12} {:>12} {:>9}  {:<15} {:>6}  {}\n", "algorithm", "cases",
             "skipped", "worst error", "limit", "err/limit", "of tensor", "beyond", "verdict");
  std::size_t failed = 0, refused = 0;
  for (const AlgorithmReport& r : reports) {
    failed += r.passed() ? 0 : 1;
    refused += r.refusal.empty() ? 0 : 1;
    if (!r.refusal.empty()) continue;
    const char* verdict = r.failure ? "FAILED" : r.passed() ? "ok" : "NOT RUN";
    if (r.worst.name.empty()) {  // nothing was compared
      fmt::print("  {:<28} {:>6} {:>8} {:>12} {:>12} {:>9}  {:<15} {:>6}  {}\n", row_name(r),
                 r.cases, r.skipped, "-", "-", "-", "-", "-", verdict);
      continue;
    }
    const Judgement worst = r.worst.highest();
    fmt::print("  {:<28} {:>6} {:>8} {:>12.3g} {:>12.3g} {:>9.3f}  {:<15} {:>6.3f}  {}\n",
               row_name(r), r.cases, r.skipped, worst.error, worst.limit, worst.ratio, r.worst.name,
               r.beyond, verdict);
  }
  for (const AlgorithmReport& r : reports) {
    if (!r.refusal.empty()) fmt::print("# {} refused: {}\n", row_name(r), r.refusal);
    if (r.failure) fmt::print("{}\n", r.failure->message);
    if (r.refusal.empty() && r.cases == 0)
      fmt::print("{} refused every drawn problem: {}\n", row_name(r), r.skip_reason);
  }
  const std::size_t rows = reports.size() - refused;
  const bool modules = std::any_of(reports.begin(), reports.end(),
                                   [](const AlgorithmReport& r) { return r.module.has_value(); });
  fmt::print("# {} of {} {} verified: {}\n", rows - failed, rows,
             modules ? "algorithms and modules" : "algorithms", failed == 0 ? "OK" : "FAILED");
}

void print_json(const VerificationTable& table, const std::vector<AlgorithmReport>& reports,
                const std::string& backend) {
  nlohmann::ordered_json out{{"command", table.command_line}, {"seed", table.seed}};
  for (const AlgorithmReport& r : reports) {
    nlohmann::ordered_json row{{"id", r.algorithm->id},
                               {"backend", backend},
                               {"cases", r.cases},
                               {"skipped", r.skipped},
                               {"passed", r.passed()}};
    if (!r.worst.name.empty()) {  // something was compared
      const Judgement worst = r.worst.highest();
      row.update({{"worst_error", worst.error},
                  {"limit", worst.limit},
                  {"worst_ratio", worst.ratio},
                  {"worst_tensor", r.worst.name},
                  {"beyond_rounding", r.beyond},
                  {"beyond_tensor", r.beyond_of}});
    }
    if (r.module) row["module"] = name_of(*r.module);
    if (!r.refusal.empty()) row["refused"] = r.refusal;
    if (r.refusal.empty() && r.cases == 0) row["skip_reason"] = r.skip_reason;
    if (r.failure) row["failure"] = r.failure->message;
    out["algorithms"].push_back(std::move(row));
  }
  fmt::print("{}\n", out.dump(2));
}

constexpr const char* kLedger = "ledger";

// Proofs draw their own problems: 1..64 ranks if none are named.
int verify_by_ledger(const Options& o, const Command& command) {
  std::string pinned;
  pins_of(o, pinned);
  const std::string ranks = o.ranks.empty() ? "" : " --ranks " + o.ranks;
  if (pinned != ranks || o.forward_only || o.checked || o.chaos || o.only_case ||
      !o.platform.empty() || !o.transport.empty()) {
    throw Error(ErrorKind::kUsage,
                "back-end ledger proves problems of its own, forward and backward; allowed with "
                "it: --algorithm, --family, --ranks, --timeout, --out, --json");
  }
  LedgerOptions options;
  options.proofs.algorithms = chosen_algorithms(o);
  options.proofs.ranks = parse_ranks(o.ranks.empty() ? "1..64" : o.ranks);
  options.time_limit = std::chrono::milliseconds(static_cast<std::int64_t>(o.time_limit_s * 1000));
  options.json = o.json;
  options.out = o.out;
  return verify_by_ledger(options, command);
}

// Without a list one to four nodes.
std::vector<int> ranks_in_nodes(const std::vector<int>& listed, int node_size,
                                const Backend& backend) {
  validate({node_size, node_size}, backend);
  if (!listed.empty()) return whole_nodes(listed, node_size, backend.leads());
  std::vector<int> ranks;
  for (int nodes = 1; nodes <= 4 && nodes * node_size <= backend.most_ranks(); ++nodes)
    ranks.push_back(nodes * node_size);
  return ranks;
}

int verify_command(const Options& o, Command& command) {
  constexpr std::int64_t kMostCases = 1'000'000'000;  // CLI11 turns larger numbers into 2^63 - 1
  if (o.cases < 1 || o.cases > kMostCases)
    throw Error(ErrorKind::kUsage,
                fmt::format("--cases {} is impossible; allowed: 1..{}", o.cases, kMostCases));
  if (o.backend == kLedger) return verify_by_ledger(o, command);
  VerifyOptions options;
  options.algorithms = chosen_algorithms(o);
  options.per_module = o.module == "all" || (o.module.empty() && !o.family.empty());
  options.pins = pins_of(o, options.repeat_flags);
  const std::unique_ptr<Backend> backend = make_backend(
      o.backend, std::chrono::milliseconds(static_cast<std::int64_t>(o.time_limit_s * 1000)),
      command, o.platform, o.transport);
  for (const int ranks : options.pins.ranks) validate({ranks}, *backend);
  if (o.ranks_per_node > 0)
    options.pins.ranks = ranks_in_nodes(options.pins.ranks, o.ranks_per_node, *backend);
  options.repeat_flags = fmt::format(
      " --backend {}{}{}{}{}{}{}", o.backend, o.platform.empty() ? "" : " --platform " + o.platform,
      o.transport.empty() ? "" : " --transport " + o.transport, options.repeat_flags,
      o.forward_only ? " --forward-only" : "", o.checked ? " --checked" : "",
      o.chaos ? fmt::format(" --chaos {}", *o.chaos) : "");
  options.seed = o.seed;
  options.cases = o.only_case ? 1 : o.cases;
  options.first_case = o.only_case.value_or(0);
  options.backward = !o.forward_only;
  options.rig.checked = o.checked;
  options.rig.chaos = o.chaos;
  options.rig.fence = o.checked ? Fence::kPoisonAndCanary : Fence::kOff;
  std::vector<AlgorithmReport> reports;
  {
    Progress progress(backend->leads());
    reports = verify(*backend, options,
                     [&](std::int64_t done, std::int64_t total) { progress.show(done, total); });
  }
  bool passed = true;
  for (const AlgorithmReport& r : reports) passed = passed && r.passed();
  if (!backend->leads()) return passed ? kOk : kFailed;
  const VerificationTable table = table_of(reports, o, command);
  if (o.json) {
    print_json(table, reports, o.backend);
  } else {
    print_text(reports, o);
  }
  if (!o.out.empty()) write_verification_run(o.out, table, capture_environment_with_gpus());
  return passed ? kOk : kFailed;
}

void add_problem_options(const CommandLine& sub, Options& o) {
  sub.option("--tokens", o.tokens, "Pin the number of tokens N, e.g. 32K (else drawn)")
      .group("Pins");
  sub.option("--batch", o.batch, "Pin the batch B").group("Pins");
  sub.option("--heads", o.heads, "Pin the query heads H").group("Pins");
  sub.option("--kv-heads", o.kv_heads, "Pin the key/value heads G").group("Pins");
  sub.option("--head-size", o.head_size, "Pin the head size D, and E with it").group("Pins");
  sub.option("--value-head-size", o.value_head_size, "Pin the value head size E").group("Pins");
  sub.option("--window", o.window, "Pin the sliding window; 0: none").group("Pins");
  sub.option("--projected", o.projected, "Pin the projected length of Linformer problems")
      .group("Pins");
  sub.option("--causal", o.causal, "Pin the causal mask: on or off")
      .one_of({"on", "off"})
      .group("Pins");
  sub.option("--segments", o.segments, "Pin packed documents: on or off")
      .one_of({"on", "off"})
      .group("Pins");
  sub.option("--dtype", o.dtype, "Pin the storage type: f32, bf16, f16, f64").group("Pins");
  sub.option(
         "--values", o.values,
         "Pin the values: normal, dominant, huge, identical_keys, constant_v, tiny, integers, deep")
      .group("Pins");
  sub.option("--module", o.module,
             "Pin the module of linear attention: basic, lightning, retention, gla, based, "
             "rebased; all: "
             "each by itself, as with --family")
      .group("Pins");
  sub.option("--layers", o.layers, "Pin the layers of a hybrid stack, e.g. LLLN").group("Pins");
  sub.option("--splits", o.splits, "Pin the pieces that a state travels in")
      .between(1, 1 << 20)
      .group("Pins");
}

}  // namespace

void add_verify(const CommandLine& app, Command& command) {
  const CommandLine sub =
      app.subcommand("verify", "Check algorithms against the reference on random problems");
  const auto o = std::make_shared<Options>();
  sub.option("--algorithm", o->algorithm, "Ids, comma-separated, or all").show_default();
  sub.option("--family", o->family, "Only algorithms of this family; linear includes hybrid")
      .one_of({"softmax", "projected softmax", "linear", "hybrid"});
  sub.option("--backend", o->backend, "thread, mpi, cuda, emulated, sim or ledger (exact)")
      .show_default();
  sub.option("--platform", o->platform,
             "Of --backend sim: a name of `seqpar list` or a file (default dgx_a100)");
  sub.option("--transport", o->transport,
             "Of --backend cuda and emulated: nccl, or local, copies between ranks of one process "
             "(default nccl, local where GPUs are fewer than ranks)")
      .one_of({"nccl", "local"});
  sub.option("--ranks", o->ranks,
             "Rank counts to draw from: 8, 2,4,8, 1..9, 8:64:*2 (default 1..9,16)");
  sub.option("--ranks-per-node", o->ranks_per_node,
             "Ranks per node, for algorithms with a mesh (else drawn)")
      .between(1, 1 << 20);
  sub.option("--cases", o->cases, "Problems per algorithm").show_default();
  sub.option("--seed", o->seed, "Seed of the drawn problems").check(refuse_no_seed).show_default();
  sub.option("--case", o->only_case, "Run only this case of the seed's stream")
      .check(refuse_no_seed);
  sub.option("--timeout", o->time_limit_s, "Longest wait for a message, in seconds")
      .check(refuse_no_time)
      .show_default();
  sub.flag("--forward-only", o->forward_only, "Skip the backward pass");
  sub.flag("--checked", o->checked, "Find buffers touched in flight; poison and fence memory");
  sub.option("--chaos", o->chaos, "Delay and reorder message completion, from this seed")
      .check(refuse_no_seed);
  sub.option("--out", o->out, "Also write the table to this run file (HDF5)");
  sub.flag("--json", o->json, "Machine-readable output");
  add_problem_options(sub, *o);
  sub.footer("Example: seqpar verify --algorithm ring/zigzag,ulysses --ranks 2,4,8 --cases 200");
  sub.callback(
      [&command, o] { command.run = [&command, o] { return verify_command(*o, command); }; });
}

}  // namespace sp
