// Ring Attention, table 1: the largest activation of a layer, in bytes of bf16.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/papers/counted.hpp"
#include "harness/papers/formula.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

struct Setting {
  std::int64_t batch, block, hidden, heads;
  int ranks;
  std::int64_t tokens() const { return block * ranks; }
  std::int64_t head_size() const { return hidden / heads; }
  Symbols symbols() const {
    const auto number = [](std::int64_t value) { return static_cast<double>(value); };
    return {{"b", number(batch)},
            {"s", number(tokens())},
            {"c", number(block)},
            {"h", number(hidden)},
            {"n", number(heads)}};
  }
  Problem problem(std::int64_t length) const {
    return softmax_problem({batch, length, heads, heads, head_size(), head_size()}, DType::kBF16,
                           false);
  }
};

constexpr double kBytes = 2;  // of one bf16

// Score matrix of one device: what grows with the square of the length in rsa, which keeps whole
// score rows (in f32 here).
double score_elements(const Setting& s) {
  const auto peak = [&](std::int64_t length) {
    return static_cast<double>(
        count("rsa", s.problem(length), {.size = 1}).most.forward.peak_bytes);
  };
  return (peak(2 * s.tokens()) - 2 * peak(s.tokens())) / 2 / 4;
}

// Everything that one rank holds in the forward pass of a ring, its shards included, in bytes.
double ring_bytes(const Setting& s, int ranks) {
  const Counted ring = count("ring/contiguous", s.problem(s.block * ranks), {.size = ranks});
  const double block = static_cast<double>(s.batch * s.block * s.hidden) * kBytes;
  return static_cast<double>(ring.most.forward.peak_bytes) + 3 * block;
}

struct Ours {
  double value;
  Provenance provenance;
  const char* reason;
};

// By tensors: every one that the layer holds, times two bytes.
Ours ours_of(const Setting& s, const std::string& layer, const std::string& column) {
  const Symbols is = s.symbols();
  const auto bytes = [&](const char* elements) { return kBytes * evaluate(elements, is); };
  const bool attention = column == "self_attention", total = column == "total";
  if (layer == "Vanilla") {
    if (attention || total)
      return {kBytes * score_elements(s), Provenance::kCounted,
              "a misprint: the scores have n s^2 elements, as in the attention column"};
    return {bytes("4*b*s*h"), Provenance::kFormula, ""};
  }
  if (layer == "Memory efficient attention") {
    if (attention) return {bytes("b*s*h + 2*b*c*h"), Provenance::kFormula, ""};
    return {bytes("4*b*s*h"), Provenance::kFormula, ""};
  }
  if (layer == "Ring Attention") {
    if (column == "feedforward") return {bytes("b*c*h"), Provenance::kFormula, ""};
    return {bytes("6*b*c*h"), Provenance::kFormula,
            "six blocks of b c h elements take two bytes each, as every other entry counts them"};
  }
  return {bytes("b*s*h"), Provenance::kFormula, ""};
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  const Setting s{config.integer("batch", 1, 1 << 16), config.size("block", 1),
                  config.integer("hidden", 1, 1 << 20), config.integer("heads", 1, 1 << 10),
                  static_cast<int>(config.integer("ranks", 2, 4096))};
  ReplayResult result;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& layer = table.text(row, "layer_type");
    for (const char* column : {"self_attention", "feedforward", "total"}) {
      const Ours ours = ours_of(s, layer, column);
      const double paper = evaluate(table.text(row, column), s.symbols());
      result.rows.push_back(row_of(layer, std::string(column) + ", " + table.text(row, column),
                                   "byte", {paper, table.grade(row), 0}, ours.value,
                                   ours.provenance, ours.reason));
    }
  }

  const double held = ring_bytes(s, s.ranks);
  const double block = static_cast<double>(s.batch * s.block * s.hidden) * kBytes;
  result.rows.push_back(context_row("ring/contiguous", "held by a rank in forward, with its shards",
                                    "bf16 blocks of b c h", held / block, Provenance::kCounted));
  result.rows.push_back(claim_row("ring/contiguous", "memory does not grow with the sequence",
                                  held == ring_bytes(s, 2 * s.ranks), Provenance::kCounted,
                                  "twice the ranks hold another number of bytes each"));
  result.findings = {
      "\"6bch bytes\" counts elements: six blocks of 16 bits are 12bch bytes, by the same table's "
      "own 2bsh for one tensor.",
      "The total of the vanilla layer prints hidden size h where its attention has n heads.",
      fmt::format("The ring here holds {:.3g} blocks, not six: Q, K, V and the output (4), the sum "
                  "and the partial result that is merged into it in f32 (4), and two pairs of "
                  "buffers that receive (4), as K and V of the shard are kept for backward.",
                  held / block)};
  result.assumption =
      "Entries are read as bytes of bf16, which is what the entries for whole sequences mean; the "
      "counted ring is the forward pass of ring/contiguous.";
  return result;
}

}  // namespace

const ReplayItem kRingAttentionTable1{"ring_attention/table1",
                                      "Ring Attention table 1: largest activation per layer",
                                      "Liu, Zaharia, Abbeel 2023, arXiv:2310.01889, table 1", run};

}  // namespace sp
