// LASP, speed comparison on 64 GPUs: who is faster, as far as attention and its messages decide it.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/measured.hpp"

namespace sp {
namespace {

constexpr double kMilli = 1e-3;

struct Heads {
  std::int64_t count, size;
};

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  const Platform platform = context.platform("platform");
  std::map<std::string, Heads> models;
  for (const Config& each : config.tables("models"))
    models[each.text("name")] = {each.integer("heads", 1, 1024),
                                 each.integer("head_size", 1, 1024)};
  std::map<std::pair<std::string, double>, double> lasp;  // throughput by model and length
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (table.text(row, "method") == "LASP")
      lasp[{table.text(row, "model"), table.number(row, "tokens")}] =
          table.number(row, "throughput");
  }
  ReplayResult result;
  double least = INFINITY, most = 0, least_paper = INFINITY, most_paper = 0;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    context.progress(static_cast<std::int64_t>(row) + 1, static_cast<std::int64_t>(table.rows()));
    const std::string &model = table.text(row, "model"), &method = table.text(row, "method");
    const std::int64_t tokens = whole_number(table, row, "tokens");
    const int gpus = rank_count(table, row, "gpus");
    const std::string label = fmt::format("{}, {}, {}K tokens", model, method, tokens / 1024);
    const bool ran = table.text(row, "status") == "ok";
    if (!models.contains(model))
      throw Error(ErrorKind::kUsage, table.name() + ": a model that the config does not describe");
    const Heads heads = models.at(model);
    ReplayRow whole = not_checkable(
        label, ran ? "throughput" : "out of memory", ran ? "token/s" : "holds",
        ran ? table.number(row, "throughput") : 1,
        method == "DeepSpeed-Ulysses" && heads.count % gpus != 0
            ? fmt::format("how {} heads were shared by {} GPUs, which the paper does not say",
                          heads.count, gpus)
            : "training of the whole model, whose layers and widths are not published");
    whole.grade = Grade::kPicture;
    result.rows.push_back(whole);
    const auto other = lasp.find({model, table.number(row, "tokens")});
    if (method != "Megatron-SP" || !ran || other == lasp.end()) continue;
    const Problem problem =
        linear_problem(Module::kRetention,
                       {1, tokens, heads.count, heads.count, heads.size, heads.size}, DType::kBF16);
    const World world{gpus, std::min(gpus, platform.node.devices), 1};
    const auto seconds = [&](const char* algorithm) {
      const LayerSeconds layer = layer_seconds(platform, algorithm, problem, world);
      return layer.forward + layer.backward;
    };
    const double own = seconds("lasp1_released"), theirs = seconds("megatron_sp_linear");
    for (const auto& [name, value] :
         {std::pair{"attention layer of Megatron-SP", theirs}, {"attention layer of LASP", own}}) {
      ReplayRow layer = context_row(fmt::format("{}, {}K tokens", model, tokens / 1024), name, "ms",
                                    value / kMilli, Provenance::kSimulated);
      layer.band = platform.band;
      result.rows.push_back(layer);
    }
    const double paper = other->second / table.number(row, "throughput");
    least = std::min(least, theirs / own);
    most = std::max(most, theirs / own);
    least_paper = std::min(least_paper, paper);
    most_paper = std::max(most_paper, paper);
    result.rows.push_back(
        claim_row(fmt::format("{}, {}K tokens", model, tokens / 1024),
                  "LASP is faster than Megatron-SP", theirs > own, Provenance::kSimulated,
                  fmt::format("as released, its chain makes the layer take {:.3g} "
                              "times as long",
                              own / theirs),
                  Grade::kPicture));
  }
  result.findings = {fmt::format(
      "Megatron-SP's attention layer takes {:.2g} to {:.2g} times as long as LASP's as released; "
      "the paper's whole iterations {:.2g} to {:.2g} times, with nearly the same factor at every "
      "length: the order is explained by the layer, the factor is not.",
      least, most, least_paper, most_paper)};
  result.assumption =
      "One attention layer, forward and backward, linear attention with one decay per head; heads "
      "by a later paper of the group (arXiv:2406.16690), since this one does not print them. LASP "
      "is taken as released: every rank receives before it works.";
  return result;
}

}  // namespace

const ReplayItem kLasp1Speed{"lasp1/speed", "LASP against Megatron-SP and Ulysses on 64 GPUs",
                             "Sun et al. 2024, arXiv:2404.02882, speed comparison", run};

}  // namespace sp
