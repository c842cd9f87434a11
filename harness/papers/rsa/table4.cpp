// RSA, table 4: how memory grows in weak scaling; throughput of whole models is not replayed.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

struct Model {
  std::int64_t hidden, heads, layers_per_stage;
  double bytes_per_score;
};

// What the scores of a stage's layers take on one rank: elements as rsa counts them (it keeps whole
// rows, in f32), times the bytes that the released code keeps of each.
double score_memory(const Model& model, std::int64_t batch, std::int64_t tokens, int ranks) {
  const std::int64_t head = model.hidden / model.heads;
  const auto peak = [&](std::int64_t length) {
    const Problem problem =
        softmax_problem({batch, length, model.heads, model.heads, head, head}, DType::kF16, false);
    return static_cast<double>(count("rsa", problem, {.size = ranks}).most.forward.peak_bytes);
  };
  const double elements = (peak(2 * tokens) - 2 * peak(tokens)) / 2 / 4;
  return elements * model.bytes_per_score * static_cast<double>(model.layers_per_stage) / kMiB;
}

// Columns that only whole models could check.
struct WholeModel {
  const char *column, *quantity, *unit;
};
constexpr WholeModel kWhole[] = {{"sp_throughput", "throughput of RSA", "token/s"},
                                 {"tp_throughput", "throughput of tensor parallelism", "token/s"},
                                 {"tp_memory", "memory of tensor parallelism", "MiB"}};

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  const Model model{config.integer("hidden", 1, 1 << 20), config.integer("heads", 1, 1 << 10),
                    config.integer("layers_per_stage", 1, 1 << 10),
                    config.quantity("bytes_per_score", Dimension::kBytes, 1, 64).value};
  const std::string calibrated = config.text("calibrated");
  struct Anchor {
    double paper, scores;
  };
  std::map<std::string, Anchor> anchors;  // the row of one rank, by what is scaled
  ReplayResult result;
  double band = 0;
  const auto predict = [&](std::size_t row) {
    const std::string& scaled = table.text(row, "scaled");
    const double scores =
        score_memory(model, whole_number(table, row, "batch"), whole_number(table, row, "tokens"),
                     rank_count(table, row, "parallel_size"));
    if (!anchors.contains(scaled)) anchors[scaled] = {table.number(row, "sp_memory"), scores};
    return anchors[scaled].paper + scores - anchors[scaled].scores;
  };
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (table.text(row, "scaled") == calibrated)
      band = std::max(band, std::abs(table.number(row, "sp_memory") / predict(row) - 1));
  }
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& scaled = table.text(row, "scaled");
    const double ranks = table.number(row, "parallel_size");
    const std::string label = fmt::format("{} scaled, N = {}", scaled, ranks);
    ReplayRow memory = context_row(label, "largest allocated memory of RSA", "MiB", predict(row),
                                   Provenance::kCounted);
    memory.paper = table.number(row, "sp_memory");
    memory.grade = table.grade(row);
    memory.rounding = table.rounding(row, "sp_memory");
    memory.fitted = ranks == 1 || scaled == calibrated;
    memory.band = band;
    result.rows.push_back(judged(memory));
    for (const auto& [column, quantity, unit] : kWhole) {
      ReplayRow whole = not_checkable(
          label, quantity, unit, table.number(row, column),
          "BERT training on up to 64 P100 with pipelines: whole models, not the attention layer");
      whole.grade = table.grade(row);
      if (!std::isnan(whole.paper)) result.rows.push_back(std::move(whole));
    }
  }
  // Growth per token of length, from one row to the next.
  double before_paper = ReplayRow::kNone, before_tokens = 0, smallest = INFINITY, largest = 0;
  double slope = 0;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (table.text(row, "scaled") != "sequence") continue;
    const double tokens = table.number(row, "tokens"), paper = table.number(row, "sp_memory");
    if (!std::isnan(before_paper)) {
      const double growth = (paper - before_paper) / (tokens - before_tokens);
      smallest = std::min(smallest, growth);
      largest = std::max(largest, growth);
      slope =
          score_memory(model, whole_number(table, row, "batch"), whole_number(table, row, "tokens"),
                       rank_count(table, row, "parallel_size")) /
          tokens;
    }
    before_paper = paper;
    before_tokens = tokens;
  }
  result.rows.push_back(context_row("sequence scaled", "memory of scores per token of length",
                                    "MiB", slope, Provenance::kCounted));
  result.findings = {
      fmt::format("Memory grows by {:.3f} to {:.3f} MiB per token of length; the scores of {} "
                  "layers at {} bytes each explain {:.3f}.",
                  smallest, largest, model.layers_per_stage, model.bytes_per_score, slope),
      fmt::format(
          "One 16-bit number per score, as tables 2 and 3 count, would explain {:.0f} % of "
          "that: the released code keeps the probabilities, the probabilities after dropout "
          "and a mask of one byte.",
          100 * 2 / model.bytes_per_score)};
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (table.number(row, "parallel_size") != 1) continue;
    result.findings.push_back(fmt::format(
        "Before {} is scaled both methods do the same work, yet RSA is {:.1f} % slower.",
        table.text(row, "scaled"),
        100 * (1 - table.number(row, "sp_throughput") / table.number(row, "tp_throughput"))));
  }
  result.assumption = fmt::format(
      "The model is not stated; BERT Large (24 layers over 8 stages) in fp16 is inferred from the "
      "memory. The row of one rank anchors each half of the table, and the rows scaled by {} set "
      "the band.",
      calibrated);
  return result;
}

}  // namespace

const ReplayItem kRsaTable4{"rsa/table4", "RSA table 4: memory in weak scaling",
                            "Li et al. 2021, arXiv:2105.13120, table 4", run};

}  // namespace sp
