// Ring Attention, section 3: the condition under which a block's computation hides its transfer,
// and what masks, grouped heads and wider types make of it.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "harness/papers/counted.hpp"
#include "harness/papers/formula.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

struct Setting {
  std::int64_t block, hidden, heads;
  int ranks;
};

// c >= factor * F / B hides every step. `sharding` decides what the mask leaves to do: a ring waits
// for its busiest rank, so the busiest rank's flops of an average step count.
double factor(const Setting& s, const std::string& algorithm, std::int64_t key_heads, DType dtype,
              bool causal, bool backward) {
  const Problem problem = softmax_problem(
      {1, s.block * s.ranks, s.heads, key_heads, s.hidden / s.heads, s.hidden / s.heads}, dtype,
      causal);
  const Measured cost = count(algorithm, problem, {.size = s.ranks}).most;
  const MeasuredPass& pass = backward ? cost.backward : cost.forward;
  // Forward has one hop less than steps; backward brings its gradients home.
  const double hops = backward ? s.ranks : s.ranks - 1;
  const double c = static_cast<double>(s.block);
  return static_cast<double>(pass.bytes_sent) / hops / c /
         (static_cast<double>(pass.flops) / s.ranks / (c * c));
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  const Setting s{config.size("block", 1), config.integer("hidden", 1, 1 << 20),
                  config.integer("heads", 1, 1 << 10),
                  static_cast<int>(config.integer("ranks", 2, 4096))};
  const std::int64_t grouped = config.integer("key_heads", 1, s.heads);
  const double c = static_cast<double>(s.block), d = static_cast<double>(s.hidden);
  ReplayResult result;

  const Problem plain = softmax_problem(
      {1, s.block * s.ranks, s.heads, s.heads, s.hidden / s.heads, s.hidden / s.heads},
      DType::kBF16, false);
  const MeasuredPass ring = count("ring/contiguous", plain, {.size = s.ranks}).most.forward;
  const Symbols symbols{{"c", c}, {"d", d}};
  const double flops = static_cast<double>(ring.flops) / s.ranks;
  const double bytes = static_cast<double>(ring.bytes_sent) / (s.ranks - 1);
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& quantity = table.text(row, "quantity");
    const std::string& value = table.text(row, "value");
    const PaperValue paper{evaluate(value, symbols), table.grade(row), 0};
    const std::string text = quantity + ", " + value;
    if (quantity == "flops of a step") {
      result.rows.push_back(
          row_of("a block of c tokens", text, "flop", paper, flops, Provenance::kCounted));
    } else if (quantity == "bytes of a step") {
      result.rows.push_back(
          row_of("a block of c tokens", text, "byte", paper, bytes, Provenance::kCounted));
    } else if (quantity == "bytes of K and V") {
      result.rows.push_back(row_of("a block of c tokens", text, "byte", paper, bytes,
                                   Provenance::kCounted,
                                   "counts elements; two bytes each make the 4cd of a step"));
    } else if (quantity == "smallest block times B over F") {
      result.rows.push_back(row_of("a block of c tokens", text, "1", paper,
                                   bytes / c / (flops / (c * c)), Provenance::kCounted));
    } else if (quantity == "B over F when decoding") {
      const double ours = config.quantity("bandwidth", Dimension::kBandwidth, 1, 1e15).value /
                          (config.quantity("peak", Dimension::kFlopRate, 1, 1e18).value *
                           config.number("utilisation", 0, 1));
      PaperValue printed = paper;
      printed.rounding = table.rounding(row, "value");
      result.rows.push_back(
          row_of("TPU v5e", text, "byte/flop", printed, ours, Provenance::kFormula,
                 "GB/s were divided by TFLOP/s: one query token does not hide a block of keys"));
    } else {
      config.refuse("table", fmt::format("unknown quantity '{}'", quantity));
    }
  }

  const auto add = [&](const char* label, const std::string& algorithm, std::int64_t key_heads,
                       DType dtype, bool causal, bool backward) {
    result.rows.push_back(context_row(
        label,
        backward ? "smallest block times B over F, backward" : "smallest block times B over F", "1",
        factor(s, algorithm, key_heads, dtype, causal, backward), Provenance::kCounted));
  };
  add("no mask, f32", "ring/contiguous", s.heads, DType::kF32, false, false);
  add("no mask, grouped heads", "ring/contiguous", grouped, DType::kBF16, false, false);
  add("causal, contiguous, busiest rank", "ring/contiguous", s.heads, DType::kBF16, true, false);
  add("causal, zigzag", "ring/zigzag", s.heads, DType::kBF16, true, false);
  add("causal, zigzag", "ring/zigzag", s.heads, DType::kBF16, true, true);
  add("causal, zigzag, grouped heads", "ring/zigzag", grouped, DType::kBF16, true, false);
  result.findings = {
      "c >= F / B follows from the counted flops and bytes, for 16-bit keys and as many key heads "
      "as query heads, without a mask, at peak speed.",
      "A causal mask that is shared evenly halves the work and not the bytes, so blocks must be "
      "twice as long; grouped heads and low utilisation ask for less.",
      "Decoding one token does not hide the rotation of keys: B / F is a thousand times smaller "
      "than "
      "the appendix has it."};
  result.assumption =
      "Steps of equal length, peak speed, projections and feed-forward left out as in the paper.";
  return result;
}

}  // namespace

const ReplayItem kRingAttentionOverlap{"ring_attention/overlap",
                                       "Ring Attention: when computation hides the transfer",
                                       "Liu, Zaharia, Abbeel 2023, arXiv:2310.01889, section 3 and "
                                       "appendix C",
                                       run};

}  // namespace sp
