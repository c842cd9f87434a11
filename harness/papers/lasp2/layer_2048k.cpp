// LASP-2, the sizes of its headline: one attention layer at 2048K tokens on 64
// GPUs, by every algorithm that serves it. SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp {
namespace {

constexpr double kMilli = 1e-3, kMebi = 0x1p20;

struct Layer {
  std::string id;
  Prediction prediction;
};

ReplayRow ours(const Layer& layer, const char* quantity, const char* unit, double value,
               Provenance provenance, double band) {
  ReplayRow row = context_row(layer.id, quantity, unit, value, provenance);
  row.band = band;
  return row;
}

// The rest of the model takes the same time with either method, so the gain of
// the attention layer alone is at least that of the whole model.
ReplayRow necessary(const Layer& layer, const Layer& lasp2, const PaperTable& table,
                    const std::string& baseline, std::int64_t tokens) {
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const bool found = table.number(row, "tokens") == static_cast<double>(tokens) &&
                       table.text(row, "quantity") == "LASP-2 throughput gain over " + baseline;
    if (!found) continue;
    const double gain = table.number(row, "value");
    const double slower = 100 * (layer.prediction.total_s() / lasp2.prediction.total_s() - 1);
    return claim_row(
        layer.id,
        fmt::format("layer slower than lasp2 by {} % or more, the whole model's gain over {}", gain,
                    baseline),
        slower * (1 + lasp2.prediction.band) >= gain, Provenance::kSimulated,
        fmt::format("the layer alone is slower by {:.3g} %", slower));
  }
  throw Error(ErrorKind::kUsage, fmt::format("{}: no gain over {}", table.name(), baseline));
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  const Platform platform = context.platform("platform");
  const int ranks = static_cast<int>(config.integer("ranks", 2, platform.devices()));
  const std::int64_t tokens = config.size("tokens", 1), heads = config.integer("heads", 1, 1024);
  const std::int64_t size = config.integer("head_size", 1, 1024);
  const Shape shape{1, tokens, heads, heads, size, size};
  const std::vector<std::string> ids = config.texts("algorithms");
  const World world{ranks, std::min(ranks, platform.node.devices), 1};
  ReplayResult result;
  std::vector<Layer> layers;
  for (const std::string& id : ids) {
    const Algorithm* algorithm = find_algorithm(id);
    if (algorithm == nullptr) config.refuse("algorithms", fmt::format("no algorithm '{}'", id));
    const Problem problem = algorithm->family == Family::kLinear
                                ? linear_problem(Module::kBasic, shape, DType::kBF16)
                                : softmax_problem(shape, DType::kBF16, true);
    layers.push_back({id, simulate(platform, *algorithm, problem, world)});
    context.progress(std::ssize(layers), std::ssize(ids));
    const Prediction& p = layers.back().prediction;
    if (p.status != RowStatus::kOk) {
      result.findings.push_back(fmt::format("{} does not run: {}", id, p.reason));
      continue;
    }
    std::int64_t sent = 0;
    for (const Measured& cost : p.ranks)
      sent = std::max(sent, cost.forward.bytes_sent + cost.backward.bytes_sent);
    const auto row = [&](const char* quantity, const char* unit, double value, Provenance by) {
      result.rows.push_back(ours(layers.back(), quantity, unit, value, by,
                                 by == Provenance::kSimulated ? p.band : 0));
    };
    row("forward", "ms", p.forward.time_s / kMilli, Provenance::kSimulated);
    row("backward", "ms", p.backward.time_s / kMilli, Provenance::kSimulated);
    row("communication that nothing hides", "ms",
        (p.forward.exposed_s + p.backward.exposed_s) / kMilli, Provenance::kSimulated);
    row("sent by a rank", "MiB", static_cast<double>(sent) / kMebi, Provenance::kCounted);
  }
  const auto layer = [&](const char* id) -> const Layer& {
    for (const Layer& candidate : layers) {
      if (candidate.id == id && candidate.prediction.status == RowStatus::kOk) return candidate;
    }
    config.refuse("algorithms", fmt::format("{} is not among them or does not run", id));
  };
  const Layer& lasp2 = layer("lasp2");
  result.rows.push_back(necessary(layer("lasp1"), lasp2, table, "LASP-1", tokens));
  result.rows.push_back(
      necessary(layer("ring/contiguous"), lasp2, table, "Ring Attention", tokens));
  for (const Layer& other : layers) {
    if (&other == &lasp2 || other.prediction.status != RowStatus::kOk) continue;
    result.findings.push_back(fmt::format("{} takes {:.4g} times as long as lasp2.", other.id,
                                          other.prediction.total_s() / lasp2.prediction.total_s()));
  }
  result.assumption = fmt::format(
      "One layer of {} heads of {} in bf16, batch 1, nothing around it; linear attention without "
      "decay for the linear algorithms, causal softmax attention for the others.",
      heads, size);
  return result;
}

}  // namespace

const ReplayItem kLasp2Layer2048k{
    "lasp2/layer-2048k", "one attention layer at 2048K tokens on 64 GPUs, by every algorithm",
    "Sun et al. 2025, LASP-2, arXiv:2502.07563, section 4.2", run};

}  // namespace sp
