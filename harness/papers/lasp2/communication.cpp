// LASP-2: traffic per layer, the paper's cost model, and sizes of states in correct units.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "harness/papers/counted.hpp"
#include "harness/papers/formula.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

struct Setting {
  std::int64_t batch, tokens, hidden, heads;
  std::int64_t key_heads, all_key_heads;  // LASP-2H: of how many the few key heads are
  int ranks;
  std::int64_t head_size() const { return hidden / heads; }
  Shape shape() const { return {batch, tokens, heads, heads, head_size(), head_size()}; }
  std::string label() const { return fmt::format("{}K tokens, {} ranks", tokens / 1024, ranks); }
};

constexpr std::int64_t kFeatureHead = 16;  // head size whose Taylor map the normalised row uses

// What is sent per rank in scalars, and how many bytes a scalar of the paper's example has.
struct Sent {
  double forward, backward, bytes;
};

double f32(std::int64_t bytes) { return static_cast<double>(bytes) / 4; }

Sent sent(const Counted& counted, double bytes) {
  return {f32(counted.most.forward.bytes_sent), f32(counted.most.backward.bytes_sent), bytes};
}

Counted linear(const Setting& s, const char* algorithm, Module module = Module::kBasic) {
  Shape shape = s.shape();
  if (module == Module::kBased) shape.D = kFeatureHead;
  return count(algorithm, linear_problem(module, shape, DType::kF32), {.size = s.ranks});
}

std::optional<Sent> counted(const Setting& s, const std::string& method) {
  const World world{.size = s.ranks};
  if (method.starts_with("LASP-1")) return sent(linear(s, "lasp1"), 4);
  if (method.starts_with("LASP-2 masked")) return sent(linear(s, "lasp2"), 4);
  if (method.starts_with("LASP-2 with per-channel gates"))
    return sent(linear(s, "lasp2", Module::kGla), 4);
  if (method.starts_with("LASP-2 with normaliser"))
    return sent(linear(s, "lasp2", Module::kBased), 4);
  if (method.starts_with("LASP-2 unmasked by all-reduce")) {
    const std::int64_t state = s.batch * s.hidden * s.head_size();
    const double once = static_cast<double>(all_reduce_traffic(state, 1, 0, s.ranks).bytes_sent);
    return Sent{once, once, 4};
  }
  if (method.starts_with("Ring Attention"))
    return sent(count("ring/contiguous", softmax_problem(s.shape(), DType::kF32, false), world), 2);
  if (method.starts_with("LASP-2H")) {
    Shape shape = s.shape();
    shape.H = s.all_key_heads;
    shape.G = s.key_heads;
    shape.D = shape.E = s.hidden / s.all_key_heads;
    return sent(count("allgather", softmax_problem(shape, DType::kF32, false), world), 2);
  }
  if (method.starts_with("Megatron-SP")) {
    const std::int64_t all = s.batch * s.tokens * s.hidden, part = all / s.ranks;
    const double one = static_cast<double>(all_gather_traffic(part, s.ranks).bytes_sent);
    // Every gather and every scatter sends as much; backward gathers its inputs again.
    return Sent{4 * one, 6 * one, 2};
  }
  return std::nullopt;
}

Symbols symbols_of(const Setting& s, const std::string& method) {
  const auto number = [](std::int64_t value) { return static_cast<double>(value); };
  const bool features = method.starts_with("LASP-2 with normaliser");
  const double dk =
      features ? number(features_of(Module::kBased, kFeatureHead)) : number(s.head_size());
  const bool grouped = method.starts_with("LASP-2H");
  return {{"B", number(s.batch)},
          {"N", number(s.tokens)},
          {"T", number(s.ranks)},
          {"W", number(s.ranks)},
          {"C", number(s.tokens / s.ranks)},
          {"H", number(s.heads)},
          {"d", number(s.hidden)},
          {"dk", dk},
          {"dphi", dk},
          {"I", 1},
          {"S", number(s.batch * s.heads) * dk * number(s.head_size())},
          {"h_kv", number(grouped ? s.hidden / s.all_key_heads * s.key_heads : s.hidden)}};
}

// A formula ends where words begin.
std::string formula_part(const std::string& text) {
  std::size_t end = text.size();
  for (const std::string_view words : {" (", " in all", " reduce-scatter"})
    end = std::min(end, text.find(words));
  return text.substr(0, end);
}

void add_traffic(ReplayResult& result, const PaperTable& table, const Setting& s) {
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& method = table.text(row, "method");
    const std::optional<Sent> ours = counted(s, method);
    if (!ours) continue;
    for (const bool forward : {true, false}) {
      const std::string& text = table.text(row, forward ? "forward" : "backward");
      const bool again = text.find("gathered again") != text.npos;
      const double once = evaluate(formula_part(text), symbols_of(s, method));
      result.rows.push_back(row_of(s.label(),
                                   fmt::format("{}, {}", method, forward ? "forward" : "backward"),
                                   "scalar", {again ? 2 * once : once, table.grade(row), 0},
                                   forward ? ours->forward : ours->backward, Provenance::kCounted));
    }
    // The table's example has 128 features with a normaliser, a size that no module has.
    if (!method.starts_with("LASP-2 with normaliser"))
      result.rows.push_back(row_of(s.label(), method + ", forward", "MB",
                                   cell(table, row, "forward_megabytes"),
                                   ours->forward * ours->bytes / 1e6, Provenance::kCounted));
  }
}

// The cost model of section 3.4 counts all ranks, both directions, one layer.
void add_cost_model(ReplayResult& result, const PaperTable& table, const Setting& s) {
  const auto both = [](const Counted& counted) {
    return f32(counted.total.forward.bytes_sent + counted.total.backward.bytes_sent);
  };
  const Counted chain = linear(s, "lasp1"), gather = linear(s, "lasp2");
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& method = table.text(row, "method");
    if (!method.starts_with("paper: ")) continue;
    const bool first = method.find("LASP-1") != method.npos;
    const double ours = both(first ? chain : gather);
    for (const bool as_printed : {true, false}) {
      Symbols symbols = symbols_of(s, method);
      if (!as_printed) symbols["d"] = static_cast<double>(s.head_size());
      std::string reason = as_printed ? "d is the hidden size where the head size belongs"
                                      : "an all-gather brings W - 1 states to each of W ranks";
      if (as_printed && !first) reason += ", and an all-gather counts as one state";
      result.rows.push_back(row_of(
          s.label(),
          fmt::format("{}, d {}", method.substr(7), as_printed ? "as printed" : "the head size"),
          "scalar",
          {evaluate(formula_part(table.text(row, "forward")), symbols), table.grade(row), 0}, ours,
          Provenance::kCounted, reason));
    }
  }
  const double W = s.ranks;
  const auto row = [&](const char* claim, double paper, double ours, const char* reason) {
    result.rows.push_back(row_of(s.label(), claim, "1", {paper, Grade::kText, 0}, ours,
                                 Provenance::kCounted, reason));
  };
  row("LASP2-C5: steps of LASP-2 per layer and iteration", 2,
      static_cast<double>(gather.most.forward.messages_sent + gather.most.backward.messages_sent) /
          (W - 1),
      "a collective is W - 1 messages of each rank");
  row("LASP2-C5: steps of LASP-1 per layer and iteration", 2 * (W - 1),
      static_cast<double>(chain.total.forward.messages_sent + chain.total.backward.messages_sent),
      "every message of the chain waits for the one before");
  row("LASP2-C6: traffic of LASP-1 over that of LASP-2", W - 1, both(chain) / both(gather),
      "only the number of steps falls by W - 1; the bytes grow by W");
  Setting longer = s;
  longer.tokens *= 2;
  result.rows.push_back(claim_row(s.label(), "LASP2-C4: the gather does not depend on the length",
                                  both(linear(longer, "lasp2")) == both(gather),
                                  Provenance::kCounted, "twice the tokens send another number"));
}

void add_sizes(ReplayResult& result, const PaperTable& table, const Setting& s) {
  for (std::size_t row = 0; row < table.rows(); ++row) {
    Setting model = s;
    model.batch = whole_number(table, row, "batch");
    model.hidden = whole_number(table, row, "hidden");
    model.heads = whole_number(table, row, "heads");
    const double state = f32(linear(model, "lasp1").most.forward.bytes_sent);
    result.rows.push_back(row_of(
        fmt::format("{}, batch {}", table.text(row, "model"), model.batch),
        "LASP2-C7: state in 16 bits", "GB", cell(table, row, "size"), 2 * state / 1e9,
        Provenance::kCounted,
        fmt::format("{} heads of {} x {} are {:.3g} MB: the hidden size stands where the head size "
                    "belongs, {} times too much",
                    model.heads, model.head_size(), model.head_size(), 2 * state / 1e6,
                    model.heads * model.heads)));
  }
}

void add_modules(ReplayResult& result, const PaperTable& table) {
  struct Known {
    std::string_view begins;
    Module module;
    std::int64_t head;
  };
  constexpr std::array<Known, 8> kKnown{{{"Basic", Module::kBasic, 128},
                                         {"Lightning", Module::kLightning, 128},
                                         {"Retention", Module::kRetention, 128},
                                         {"GLA", Module::kGla, 128},
                                         {"Based (feature dim 16)", Module::kBased, 16},
                                         {"Based (Linear-MoE", Module::kBased, 128},
                                         {"Rebased (feature dim 16)", Module::kRebased, 16},
                                         {"Rebased (Linear-MoE", Module::kRebased, 128}}};
  constexpr std::int64_t kHeads = 16, kValues = 128;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& name = table.text(row, "module");
    for (const Known& known : kKnown) {
      if (!name.starts_with(known.begins)) continue;
      const Problem problem =
          linear_problem(known.module, {1, 1024, kHeads, kHeads, known.head, kValues}, DType::kF32);
      const double bytes =
          static_cast<double>(count("lasp2", problem, {.size = 2}).most.forward.bytes_sent);
      const double scalars = table.number(row, "state") + table.number(row, "extra");
      result.rows.push_back(row_of(name, "scalars per head to gather", "scalar",
                                   {scalars, table.grade(row), 0}, bytes / 4 / kHeads,
                                   Provenance::kCounted));
      result.rows.push_back(row_of(name, "message, f32, 16 heads", "MiB",
                                   cell(table, row, "message"), bytes / (1 << 20),
                                   Provenance::kCounted));
    }
  }
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  const Setting s{config.integer("batch", 1, 1 << 16),
                  config.size("tokens", 1),
                  config.integer("hidden", 1, 1 << 20),
                  config.integer("heads", 1, 1 << 10),
                  config.integer("key_heads", 1, 1 << 10),
                  config.integer("all_key_heads", 1, 1 << 10),
                  static_cast<int>(config.integer("ranks", 2, 4096))};
  ReplayResult result;
  add_traffic(result, table, s);
  add_cost_model(result, table, s);
  add_sizes(result, table_of(config, "state_sizes"), s);
  add_modules(result, table_of(config, "modules"));
  const double state = f32(linear(s, "lasp1").most.forward.bytes_sent);
  const double ring = static_cast<double>(s.ranks - 1) * state;
  result.findings = {
      fmt::format("One state of the 1B model is {:.0f} scalars, {:.2f} MiB in f32; a rank sends it "
                  "once in the chain and {} times in the all-gather.",
                  state, state * 4 / (1 << 20), s.ranks - 1),
      fmt::format(
          "All ranks together move {} times as many bytes in LASP-2 as in LASP-1 ({:.0f} MB "
          "per rank, layer and pass): what falls is the number of dependent steps.",
          s.ranks, ring * 4 / 1e6),
      "The cost model uses the hidden size as head size, leaves out the layers and counts an "
      "all-gather as one state.",
      "With whole heads of 128, Based and Rebased would send 65 and more times as much as the "
      "others."};
  result.assumption =
      "One layer of the 1B model with batch 1; a collective counts as one step and sends in its "
      "bandwidth-optimal form; states travel in f32.";
  return result;
}

}  // namespace

const ReplayItem kLasp2Communication{"lasp2/communication", "LASP-2: traffic and sizes of states",
                                     "Sun et al. 2025, arXiv:2502.07563, sections 3.1 to 3.5", run};

}  // namespace sp
