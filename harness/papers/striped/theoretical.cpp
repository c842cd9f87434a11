// Striped Attention, appendix A: the theoretical speedup over Ring Attention, all rows.
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

constexpr double kRounding = 0.005;  // two decimals throughout; 1.70 is stored as 1.7

// The model without attention and the attention, flops per token of a forward pass.
struct Flops {
  double rest = 0, attention = 0;
};

Flops flops_of(const PaperTable& models, std::size_t model, double tokens, double weight) {
  const double d = models.number(model, "hidden"), ff = models.number(model, "feedforward");
  const double layers = models.number(model, "layers");
  // Three matrices of the gated feed-forward part count as two in the published column.
  return {2 * (layers * (4 * d * d + 2 * d * ff) + models.number(model, "vocabulary") * d),
          weight * 2 * tokens * d * layers};
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config), models = table_of(config, "models");
  const double a100_weight = config.number("a100_weight", 1, 16);
  std::map<std::string, std::size_t> model_rows;
  for (std::size_t row = 0; row < models.rows(); ++row) model_rows[models.text(row, "model")] = row;
  // How much longer the contiguous ring takes for attention alone, waiting for the busiest rank at
  // every step.
  std::map<int, double> attention_gain;
  ReplayResult result;
  double worst = 0;
  int unweighted = 0;  // rows on A100 that agree if attention weighs its flops
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& hardware = table.text(row, "hardware");
    const std::string& model = table.text(row, "model");
    const auto known = model_rows.find(model);
    if (known == model_rows.end()) config.refuse("models", fmt::format("no model {}", model));
    const int ranks = rank_count(table, row, "sp");
    if (!attention_gain.contains(ranks)) {
      attention_gain[ranks] = lockstep_blocks(Sharding::kContiguous, ranks) /
                              lockstep_blocks(Sharding::kStriped, ranks);
    }
    const bool a100 = hardware.find("A100") != std::string::npos;
    const double tokens = table.number(row, "tokens");
    const auto speedup = [&](double weight) {
      const Flops flops = flops_of(models, known->second, tokens, weight);
      return (flops.rest + flops.attention * attention_gain[ranks]) /
             (flops.rest + flops.attention);
    };
    const double ours = speedup(a100 ? a100_weight : 1);
    const double paper = table.number(row, "theoretical");
    unweighted += a100 && std::abs(speedup(1) - paper) <= kRounding;
    worst = std::max(worst, std::abs(ours - paper));
    result.rows.push_back(
        row_of(fmt::format("{}, {}, mesh {}x{}, {}K", hardware, model, table.text(row, "tp"), ranks,
                           static_cast<std::int64_t>(tokens) / 1024),
               "theoretical speedup", "1", {paper, table.grade(row), kRounding}, ours,
               Provenance::kCounted));
  }
  for (const auto& [ranks, gain] : attention_gain)
    result.rows.push_back(context_row(fmt::format("{} ranks", ranks),
                                      "speedup of attention alone, 2 - 1/P", "1", gain,
                                      Provenance::kCounted));
  result.findings = {
      fmt::format("{} rows agree; the largest difference is {:.4f}, the column has two decimals.",
                  reproduced_of(result), worst),
      "The column is a bound of whole models: attention alone gains 2 - 1/P, and the rest of the "
      "model, which gains nothing, dilutes it.",
      fmt::format("On A100 attention must weigh {} times its flops, as it does in TF32 beside bf16 "
                  "weights; the paper does not say so. Without that, {} rows on A100 agree.",
                  a100_weight, unweighted)};
  result.assumption = fmt::format(
      "Ranks wait for the busiest one at every step of the ring, in long blocks; attention flops "
      "weigh {} on A100 "
      "and 1 on TPU against those of the weights, whose gated feed-forward part counts two of its "
      "three matrices.",
      a100_weight);
  return result;
}

}  // namespace

const ReplayItem kStripedTheoretical{
    "striped/theoretical", "Striped Attention: theoretical speedups, 137 rows",
    "Brandon et al. 2023, arXiv:2311.09431, tables A.1 to A.3", run};

}  // namespace sp
