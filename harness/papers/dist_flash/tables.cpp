// DistFlashAttn, tables 1 and 4: seconds of a training iteration of LLaMA-7B and its variants.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "harness/papers/dense_model.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/measured.hpp"

namespace sp {
namespace {

// Flops per weight and token: forward, twice that backward, and forward again from checkpoints.
constexpr double kFlopsPerWeight = 8;
// Pairs of all-gather and reduce-scatter that tensor parallelism makes in a layer: two forward, two
// backward, two when it computes again.
constexpr double kPairs = 6;

class Iterations {
 public:
  Iterations(const ReplayContext& context, int number)
      : table_(table_of(context.config)),
        one_node_(context.platform("one_node")),
        more_nodes_(context.platform("more_nodes")),
        adapters_(static_cast<int>(context.config.integer("adapters_tried", 1, 1024))),
        number_(number) {
    if (more_nodes_.node.devices % adapters_ != 0)
      context.config.refuse("adapters_tried", "not a divisor of the devices of a node");
    for (const Config& each : context.config.tables("models"))
      models_.emplace_back(each.text("column"), DenseModel::of(each));
    if (models_.empty()) context.config.refuse("models", "at least one is needed");
    fit();
  }
  ReplayResult result(const ReplayContext& context);

 private:
  bool across_nodes(std::size_t row) const { return table_.number(row, "nodes") > 1; }
  const Platform& platform(std::size_t row) const {
    return across_nodes(row) ? more_nodes_ : one_node_;
  }
  // Attention and what the method sends for a layer, with what checkpoints make it repeat.
  double layer(const Platform& on, std::size_t row, const DenseModel& model) const;
  double seconds(const Platform& on, std::size_t row, const DenseModel& model) const {
    return static_cast<double>(model.layers) * layer(on, row, model) +
           kFlopsPerWeight * work(row, model) / flops_per_s_;
  }
  double work(std::size_t row, const DenseModel& model) const {
    return static_cast<double>(model.weights()) * table_.number(row, "tokens_per_gpu");
  }
  void fit() {  // the first row of DistFlashAttn, the first model
    for (std::size_t row = 0; row < table_.rows(); ++row) {
      if (table_.text(row, "method") != "DistFlashAttn") continue;
      const auto& [column, model] = models_.front();
      fitted_row_ = row;
      flops_per_s_ = kFlopsPerWeight * work(row, model) /
                     (table_.number(row, column) -
                      static_cast<double>(model.layers) * layer(platform(row), row, model));
      return;
    }
    throw Error(ErrorKind::kUsage, table_.name() + ": no row of DistFlashAttn");
  }
  void add(std::size_t row, const std::string& column, const DenseModel& model);
  void speedups();

  PaperTable table_;
  Platform one_node_, more_nodes_;
  int adapters_;  // per node, instead of the platform's
  int number_;
  std::vector<std::pair<std::string, DenseModel>> models_;
  double flops_per_s_ = 0;
  std::size_t fitted_row_ = 0;
  struct Seconds {
    double paper, ours;
  };
  std::map<std::string, Seconds> seconds_;  // by method, model and setting
  std::map<std::string, std::vector<double>> errors_;
  ReplayResult result_;
};

double Iterations::layer(const Platform& on, std::size_t row, const DenseModel& model) const {
  const std::string& method = table_.text(row, "method");
  const std::int64_t tokens = whole_number(table_, row, "tokens");
  const int gpus = rank_count(table_, row, "gpus");
  const World world{gpus, std::min(gpus, on.node.devices), 1};
  if (method == "DistFlashAttn") {
    const LayerSeconds run = layer_seconds(on, "dist_flash", model.attention(tokens), world);
    return run.forward + run.backward;  // checkpoints are at its outputs
  }
  if (method == "Megatron-LM") {
    const LayerSeconds run =
        single_device_seconds(on, model.attention_of_heads(tokens, gpus), true);
    return 2 * run.forward + run.backward +
           kPairs * gather_scatter_seconds(on, tokens * model.hidden() * 2, gpus);
  }
  Problem padded = model.attention_of_heads(tokens, gpus);
  padded.shape.H *= gpus;
  padded.shape.G *= gpus;
  const LayerSeconds run = layer_seconds(on, "ulysses", padded, world);
  return 2 * run.forward + run.backward;
}

std::string setting_of(const PaperTable& table, std::size_t row) {
  return fmt::format("{} x 8 GPUs, {}K tokens each", table.number(row, "nodes"),
                     table.number(row, "tokens_per_gpu") / 1024);
}

void Iterations::add(std::size_t row, const std::string& column, const DenseModel& model) {
  const PaperValue paper = cell(table_, row, column);
  if (std::isnan(paper.value)) return;
  const std::string& method = table_.text(row, "method");
  const std::string label = fmt::format("{}, {}, {}", method, model.name, setting_of(table_, row));
  ReplayRow made = context_row(label, "iteration", "s", seconds(platform(row), row, model),
                               Provenance::kSimulated);
  made.paper = paper.value;
  made.grade = paper.grade;
  made.rounding = paper.rounding;
  made.band = platform(row).band;
  made.fitted = row == fitted_row_ && column == models_.front().first;
  double wider = 0;
  if (across_nodes(row)) {
    Platform faster = more_nodes_;
    faster.fabric.adapters = adapters_;
    wider = seconds(faster, row, model);
    const bool missed = judged(made).verdict == ClaimVerdict::kNotReproduced;
    if (missed)
      made.reason = fmt::format(
          "off by {:+.3g} %, as {} a node cannot carry the messages in this time; "
          "with {} it takes {:.3g} s",
          100 * made.error(), more_nodes_.fabric.adapters == 1 ? "one adapter" : "the adapters",
          adapters_, wider);
  }
  result_.rows.push_back(judged(made));
  if (!made.fitted)
    errors_[method + (across_nodes(row) ? " across nodes" : " in one node")].push_back(
        made.error());
  seconds_[label] = {paper.value, made.ours};
  ReplayRow attention = context_row(
      label, "attention and its messages", "s",
      static_cast<double>(model.layers) * layer(platform(row), row, model), Provenance::kSimulated);
  attention.band = made.band;
  result_.rows.push_back(attention);
  if (!across_nodes(row)) return;
  ReplayRow other = context_row(label, fmt::format("iteration with {} adapters a node", adapters_),
                                "s", wider, Provenance::kSimulated);
  other.band = made.band;
  result_.rows.push_back(other);
  errors_[fmt::format("{} across nodes, with {} adapters a node instead of {}", method, adapters_,
                      more_nodes_.fabric.adapters)]
      .push_back(other.ours / paper.value - 1);
}

// Who is faster, free of most of the rest.
void Iterations::speedups() {
  for (std::size_t row = 0; row < table_.rows(); ++row) {
    const std::string& method = table_.text(row, "method");
    if (method == "DistFlashAttn") continue;
    for (const auto& [column, model] : models_) {
      const std::string rest = fmt::format(", {}, {}", model.name, setting_of(table_, row));
      const auto theirs = seconds_.find(method + rest), own = seconds_.find("DistFlashAttn" + rest);
      if (theirs == seconds_.end() || own == seconds_.end()) continue;
      ReplayRow made = context_row(method + rest, "time over that of DistFlashAttn", "1",
                                   theirs->second.ours / own->second.ours, Provenance::kSimulated);
      made.paper = theirs->second.paper / own->second.paper;
      made.grade = Grade::kDerived;
      made.band = platform(row).band;
      result_.rows.push_back(judged(made));
    }
  }
}

ReplayResult Iterations::result(const ReplayContext& context) {
  for (std::size_t row = 0; row < table_.rows(); ++row) {
    context.progress(static_cast<std::int64_t>(row) + 1, static_cast<std::int64_t>(table_.rows()));
    if (static_cast<int>(table_.number(row, "table")) != number_) continue;
    for (const auto& [column, model] : models_) add(row, column, model);
  }
  speedups();
  for (auto& [method, errors] : errors_) {
    const auto [least, most] = std::ranges::minmax(errors);
    result_.findings.push_back(
        fmt::format("{}: {} iterations, {:+.1f} % to "
                    "{:+.1f} %.",
                    method, errors.size(), 100 * least, 100 * most));
  }
  result_.findings.push_back(
      fmt::format("The rest of the model runs at {:.0f} TFLOP/s a GPU, {:.0f} % of the peak.",
                  flops_per_s_ / 1e12, 100 * flops_per_s_ / one_node_.device.half_flops));
  result_.findings.push_back(
      "More adapters were tried after the rows across nodes had come out too slow: the paper's 100 "
      "Gbit/s is then a link of every GPU, not of a node.");
  result_.assumption = fmt::format(
      "The rest of the model is {} flops a weight and token at one speed, fitted to {} on {}; "
      "gathers of sharded weights hide behind it. Attention is simulated; Megatron-LM and Ulysses "
      "pad the heads to a multiple of the GPUs and compute forward twice, DistFlashAttn once.",
      kFlopsPerWeight, models_.front().second.name, setting_of(table_, fitted_row_));
  return std::move(result_);
}

template <int kNumber>
ReplayResult run(const ReplayContext& context) {
  return Iterations(context, kNumber).result(context);
}

}  // namespace

const ReplayItem kDistFlashTable1{
    "dist_flash/table1", "DistFlashAttn table 1: iterations of LLaMA-7B against Megatron-LM",
    "Li, Shao et al. 2023, arXiv:2310.03294, table 1", run<1>};
const ReplayItem kDistFlashTable4{"dist_flash/table4",
                                  "DistFlashAttn table 4: iterations of LLaMA-7B against Ulysses",
                                  "Li, Shao et al. 2023, arXiv:2310.03294, table 4", run<4>};

}  // namespace sp
