// Ring Attention, figure 5: what training on a data set costs at a longer context, over 4K.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <map>
#include <utility>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

constexpr double kWeightFlops = 24;  // per token, layer and hidden^2: projections and feed-forward

// Flops of attention per pair of tokens and unit of hidden size, as the ring counts them without a
// mask.
double flops_per_pair(std::int64_t head_size) {
  constexpr std::int64_t kTokens = 1024;
  const Problem problem =
      softmax_problem({1, kTokens, 1, 1, head_size, head_size}, DType::kBF16, false);
  const Counted ring = count("ring/contiguous", problem, {.size = 1});
  return static_cast<double>(ring.most.forward.flops) /
         static_cast<double>(kTokens * kTokens * head_size);
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  const double base = static_cast<double>(config.size("base", 1));
  const double pair = flops_per_pair(config.integer("head_size", 1, 1 << 12));
  const auto per_token = [&](double hidden, double tokens) {
    return kWeightFlops * hidden * hidden + pair * tokens * hidden;
  };
  ReplayResult result;
  std::map<std::string, std::pair<ReplayCurve, ReplayCurve>> curves;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& model = table.text(row, "model");
    const double hidden = table.number(row, "hidden"), tokens = table.number(row, "tokens");
    const double ratio = per_token(hidden, tokens) / per_token(hidden, base);
    result.rows.push_back(row_of(fmt::format("{}, {}", model, table.text(row, "label")),
                                 "flops per data set, over 4K", "1", cell(table, row, "ratio"),
                                 ratio, Provenance::kCounted));
    auto& [ours, paper] = curves[model];
    for (ReplayCurve* curve : {&ours, &paper}) {
      curve->plot = "Cost of a data set at longer context, over 4K";
      curve->name = model;
      curve->x = "context (tokens)";
      curve->y = "flops, over 4K (1)";
      curve->provenance = Provenance::kCounted;
      curve->xs.push_back(tokens);
    }
    paper.from_paper = true;
    ours.ys.push_back(ratio);
    paper.ys.push_back(table.number(row, "ratio"));
  }
  for (auto& [model, pair_of_curves] : curves) {
    result.curves.push_back(std::move(pair_of_curves.first));
    result.curves.push_back(std::move(pair_of_curves.second));
  }
  result.findings = {fmt::format(
      "{} cells agree; the 13B row needs a hidden size of 5120, where the text prints 5140.",
      reproduced_of(result))};
  result.assumption =
      "24 h^2 flops per token and layer for weights, the whole square of the attention matrix (no "
      "mask), and the same number of tokens at every context.";
  return result;
}

}  // namespace

const ReplayItem kRingAttentionFigure5{
    "ring_attention/figure5", "Ring Attention figure 5: cost of longer context",
    "Liu, Zaharia, Abbeel 2023, arXiv:2310.01889, figure 5", run};

}  // namespace sp
