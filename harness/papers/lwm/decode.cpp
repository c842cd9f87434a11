// LWM, decoding: keys and values that rotate for every token, against queries whose partial results
// are merged.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

struct Setting {
  std::int64_t tokens, layers, heads, head_size;
  int tp, sp;
};

// Keys and values of one rank's shard, all layers: what ring/contiguous passes on per hop.
double shard_bytes(const Setting& s, DType dtype) {
  const std::int64_t heads = s.heads / s.tp;
  const Problem problem =
      softmax_problem({1, s.tokens, heads, heads, s.head_size, s.head_size}, dtype, true);
  const Counted ring = count("ring/contiguous", problem, {.size = s.sp});
  return static_cast<double>(s.layers * ring.most.forward.bytes_sent) / (s.sp - 1);
}

// Partial results (f32 output and log-sum-exp) of `queries` tokens that a rank sends to all others.
double merge_bytes(const Setting& s, std::int64_t queries) {
  const std::int64_t partial = queries * (s.heads / s.tp) * (s.head_size + 1) * 4;
  return static_cast<double>(s.layers * all_gather_traffic(partial, s.sp).bytes_sent);
}

// The number that a text begins with.
double leading(const std::string& text) {
  double value = ReplayRow::kNone;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

void add_hardware(ReplayResult& result, const PaperTable& table, const Config& config,
                  const Setting& s) {
  const double parameters = config.number("parameters", 1, 1e15);
  const double memory = config.quantity("gpu_memory", Dimension::kBytes, 1, 1e15).value;
  Setting whole = s;
  whole.tp = 1;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string &setup = table.text(row, "setup"), &hardware = table.text(row, "hardware");
    const std::string& tokens = table.text(row, "tokens");
    const DType dtype =
        table.text(row, "precision").starts_with("float32") ? DType::kF32 : DType::kF16;
    const double per_token =
        shard_bytes(whole, dtype) * s.sp / static_cast<double>(s.tokens);  // all layers and heads
    if (setup.starts_with("derived KV cache")) {
      // "1024 GiB total" stands where other rows have their machine.
      result.rows.push_back(row_of(setup, "keys and values, " + table.text(row, "precision"), "GiB",
                                   {leading(hardware), table.grade(row), 0.5},
                                   per_token * static_cast<double>(s.tokens) / kGiB,
                                   Provenance::kCounted));
    } else if (hardware.starts_with("TPUv4-128")) {
      const double devices = table.number(row, "tp") * table.number(row, "sp");
      const double chips = leading(hardware.substr(hardware.find('-') + 1)) / 2;
      result.rows.push_back(row_of(
          hardware, "chips for tp x sp", "1", {chips, table.grade(row), 0}, devices,
          Provenance::kFormula,
          "v4-N has N / 2 chips in the reading under which all training meshes divide; an author "
          "names v4-256"));
    } else if (hardware.find("A100-80GB") != std::string::npos) {
      const double gpus = leading(hardware);
      const double free = gpus * memory - 2 * parameters;
      const double claimed = 1024 * leading(tokens);
      result.rows.push_back(
          claim_row(hardware, fmt::format("keys and values of {} tokens fit", tokens),
                    claimed * per_token <= free, Provenance::kCounted,
                    fmt::format("{:.0f} KiB per token", per_token / 1024), table.grade(row)));
      result.rows.push_back(context_row(hardware, "tokens that fit beside the weights", "token",
                                        free / per_token, Provenance::kCounted));
    }
  }
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config), inference = table_of(config, "inference");
  const Setting s{config.size("tokens", 1),
                  config.integer("layers", 1, 1 << 10),
                  config.integer("heads", 1, 1 << 10),
                  config.integer("head_size", 1, 1 << 12),
                  static_cast<int>(config.integer("tp", 1, 1 << 10)),
                  static_cast<int>(config.integer("sp", 2, 1 << 10))};
  const double bandwidth = config.quantity("bandwidth", Dimension::kBandwidth, 1, 1e15).value;
  const double hop = shard_bytes(s, DType::kF32), rotated = hop * (s.sp - 1);
  const double merged = merge_bytes(s, 1);
  const std::string label = fmt::format("{}K tokens, tp {}, sp {}", s.tokens / 1024, s.tp, s.sp);
  ReplayResult result;
  for (std::size_t row = 0; row < table.rows(); ++row)
    result.rows.push_back(row_of(label, table.text(row, "quantity") + " per token, sp hops", "GiB",
                                 cell(table, row, "gibibytes"), hop * s.sp / kGiB,
                                 Provenance::kCounted));
  result.rows.push_back(
      context_row(label, "the same with sp - 1 hops", "GiB", rotated / kGiB, Provenance::kCounted));
  result.rows.push_back(context_row(label, "partial results merged instead", "KiB", merged / 1024,
                                    Provenance::kCounted));
  result.rows.push_back(context_row(label, "queries at which both send as much", "token",
                                    rotated / merged, Provenance::kCounted));
  add_hardware(result, inference, config, s);

  const char* plot = "Sent per chip for one decoded token";
  for (const bool rotate : {true, false}) {
    ReplayCurve curve{.plot = plot,
                      .name = rotate ? "rotate keys and values" : "merge partial results",
                      .x = "context (tokens)",
                      .y = "sent per chip and token (byte)",
                      .provenance = Provenance::kCounted,
                      .xs = {},
                      .ys = {}};
    for (std::int64_t tokens = 4096; tokens <= s.tokens; tokens *= 2) {
      Setting at = s;
      at.tokens = tokens;
      curve.xs.push_back(static_cast<double>(tokens));
      curve.ys.push_back(rotate ? shard_bytes(at, DType::kF32) * (s.sp - 1) : merge_bytes(at, 1));
    }
    result.curves.push_back(std::move(curve));
  }
  result.findings = {
      fmt::format(
          "One decoded token rotates {:.0f} GiB per chip, {:.0f} ms at the link's full {:.0f} "
          "GB/s; merging partial results sends {:.0f} KiB, {:.2g} times less.",
          rotated / kGiB, 1e3 * rotated / bandwidth, bandwidth / 1e9, merged / 1024,
          rotated / merged),
      fmt::format(
          "Rotation pays from {:.0f} queries on, which is {:.2f} per key that a rank holds: "
          "in a prefill, not in decoding, at any context and any sp.",
          rotated / merged, rotated / merged / (static_cast<double>(s.tokens) / s.sp)),
      "The released code makes sp hops where sp - 1 suffice."};
  result.assumption =
      "Every rank has the query; partial results are f32 outputs with their log-sum-exps, gathered "
      "by all; 16-bit weights on the GPUs.";
  return result;
}

}  // namespace

const ReplayItem kLwmDecode{"lwm/decode", "LWM: traffic of decoding, and what fits",
                            "Liu, Yan, Zaharia, Abbeel 2024, arXiv:2402.08268, inference", run};

}  // namespace sp
