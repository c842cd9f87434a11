// BurstAttention, tables 2 and 3: latency of the first token of LLaMA 7b and 13b on 8 devices.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "harness/papers/dense_model.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/measured.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp {
namespace {

constexpr double kGiga = 1e9;

class FirstToken {
 public:
  FirstToken(const ReplayContext& context, int number)
      : table_(table_of(context.config)),
        platform_(context.platform("platform")),
        ranks_(static_cast<int>(context.config.integer("ranks", 2, platform_.devices()))),
        number_(number) {
    for (const Config& each : context.config.tables("models")) {
      const DenseModel model = DenseModel::of(each);
      models_[model.name] = model;
    }
    fit(context.config.table("fitted"));
  }
  ReplayResult result(const ReplayContext& context);

 private:
  void fit(const Config& row);
  const DenseModel& model(std::size_t row) const {
    const auto found = models_.find(table_.text(row, "model"));
    if (found == models_.end())
      throw Error(ErrorKind::kUsage, table_.name() + ": a model that the config does not describe");
    return found->second;
  }
  // Everything but attention and what it sends: matrices, evenly shared, at the fitted speed.
  double rest(const DenseModel& model, std::int64_t tokens) const {
    return static_cast<double>(2 * model.weights() * tokens) / ranks_ / flops_per_s_;
  }
  // Attention of one layer and what the method sends for a layer; NaN: out of memory. Tensor
  // parallelism sends activations of `element` bytes.
  double layer(std::size_t row, const std::string& method, std::string* memory,
               std::int64_t element = 2) const;
  void add(std::size_t row);

  PaperTable table_;
  Platform platform_;
  int ranks_, number_;
  std::map<std::string, DenseModel> models_;
  double flops_per_s_ = 0;
  std::size_t fitted_row_ = 0;
  std::map<std::string, std::vector<double>> errors_;  // by method
  ReplayResult result_;
};

bool is(const std::string& method, const char* beginning) { return method.starts_with(beginning); }

double FirstToken::layer(std::size_t row, const std::string& method, std::string* memory,
                         std::int64_t element) const {
  const DenseModel& dense = model(row);
  const std::int64_t tokens = whole_number(table_, row, "tokens");
  const std::int64_t activations = tokens * dense.hidden() * element;
  if (is(method, "TP")) {
    const double attention =
        single_device_seconds(platform_, dense.attention_of_heads(tokens, ranks_), false).forward;
    return attention + 2 * (is(method, "TP Megatron V1")
                                ? all_reduce_seconds(platform_, activations, ranks_)
                                : gather_scatter_seconds(platform_, activations, ranks_));
  }
  SimulationOptions options;
  options.backward = false;
  options.resident_bytes = 2 * dense.weights();
  const Prediction prediction =
      simulate(platform_, *find_algorithm(is(method, "RingAttention") ? "rsa" : "burst"),
               dense.attention(tokens), {ranks_, ranks_, 1}, options);
  if (prediction.status == RowStatus::kOk) return prediction.forward.time_s;
  if (memory != nullptr) *memory = prediction.reason;
  return ReplayRow::kNone;
}

// Speed of the rest of the model from one row.
void FirstToken::fit(const Config& wanted) {
  const std::string name = wanted.text("model"), method = wanted.text("method");
  const std::int64_t tokens = wanted.size("tokens", 1);
  for (std::size_t row = 0; row < table_.rows(); ++row) {
    if (table_.text(row, "model") != name || table_.text(row, "method") != method ||
        table_.number(row, "tokens") != static_cast<double>(tokens))
      continue;
    const DenseModel& dense = model(row);
    const double left = table_.number(row, "latency") -
                        static_cast<double>(dense.layers) * layer(row, method, nullptr);
    if (!(left > 0)) wanted.refuse("tokens", "attention alone takes longer than this row");
    flops_per_s_ = static_cast<double>(2 * dense.weights() * tokens) / ranks_ / left;
    fitted_row_ = row;
    return;
  }
  wanted.refuse("tokens", "the table has no such row");
}

void FirstToken::add(std::size_t row) {
  const std::string& method = table_.text(row, "method");
  const std::int64_t tokens = whole_number(table_, row, "tokens");
  const std::string label =
      fmt::format("{}, {}, {}K tokens", table_.text(row, "model"), method, tokens / 1024);
  const bool fits = table_.text(row, "status") == "ok";
  const PaperValue paper = cell(table_, row, "latency");
  if (is(method, "BurstAttention w/o LAO")) {
    ReplayRow made = not_checkable(label, fits ? "latency of the first token" : "out of memory",
                                   fits ? "s" : "holds", fits ? paper.value : 1,
                                   "a kernel that stores the scores of a block; ours never does");
    result_.rows.push_back(made);
    return;
  }
  if (is(method, "TP") && !fits) {
    result_.rows.push_back(
        not_checkable(label, "out of memory", "holds", 1,
                      "the activations of a whole model, as its code keeps them"));
    return;
  }
  std::string memory;
  const double attention = layer(row, method, &memory);
  if (!fits) {
    result_.rows.push_back(
        claim_row(label, "out of memory", std::isnan(attention), Provenance::kCounted,
                  "weights and one f32 matrix of probabilities fit barely; a copy of it would not",
                  Grade::kPrinted));
    return;
  }
  const DenseModel& dense = model(row);
  ReplayRow made = context_row(label, "latency of the first token", "s",
                               static_cast<double>(dense.layers) * attention + rest(dense, tokens),
                               Provenance::kSimulated);
  made.paper = paper.value;
  made.grade = paper.grade;
  made.rounding = paper.rounding;
  made.band = platform_.band;
  made.fitted = row == fitted_row_;
  result_.rows.push_back(judged(made));
  if (!made.fitted) errors_[method].push_back(made.error());
  if (!is(method, "TP")) return;
  ReplayRow wide = context_row(
      label, "the same with activations sent in f32", "s",
      static_cast<double>(dense.layers) * layer(row, method, nullptr, 4) + rest(dense, tokens),
      Provenance::kSimulated);
  wide.band = platform_.band;
  result_.rows.push_back(wide);
  errors_[method + ", activations sent in f32"].push_back(wide.ours / paper.value - 1);
}

ReplayResult FirstToken::result(const ReplayContext& context) {
  std::map<std::string, std::array<ReplayCurve, 2>> curves;
  for (std::size_t row = 0; row < table_.rows(); ++row) {
    context.progress(static_cast<std::int64_t>(row) + 1, static_cast<std::int64_t>(table_.rows()));
    if (static_cast<int>(table_.number(row, "table")) != number_) continue;
    const std::size_t before = result_.rows.size();
    add(row);
    const ReplayRow& made = result_.rows[before];
    if (made.unit != "s" || std::isnan(made.ours)) continue;
    auto& pair = curves[table_.text(row, "method")];
    for (const bool paper : {true, false}) {
      ReplayCurve& curve = pair[paper ? 0 : 1];
      curve.plot = "Latency of the first token, " + table_.text(row, "model");
      curve.name = table_.text(row, "method");
      curve.x = "sequence length (tokens)";
      curve.y = "latency (s)";
      curve.from_paper = paper;
      curve.xs.push_back(table_.number(row, "tokens"));
      curve.ys.push_back(paper ? made.paper : made.ours);
    }
  }
  for (auto& [method, pair] : curves) {
    for (ReplayCurve& curve : pair) result_.curves.push_back(std::move(curve));
  }
  for (auto& [method, errors] : errors_) {
    const auto [least, most] = std::ranges::minmax(errors);
    result_.findings.push_back(
        fmt::format("{}: {} rows that were not fitted, {:+.1f} % to {:+.1f} %.", method,
                    errors.size(), 100 * least, 100 * most));
  }
  result_.findings.push_back(fmt::format(
      "The rest of the model runs at {:.1f} TFLOP/s a device, {:.1f} % of the peak in 16 bit: most "
      "of a latency is something that the paper does not describe. Plain f32 is not it, at {:.0f} "
      "% "
      "of the 19.5 TFLOP/s of the data sheet.",
      flops_per_s_ / (1000 * kGiga), 100 * flops_per_s_ / platform_.device.half_flops,
      100 * flops_per_s_ / 19.5e12));
  result_.findings.push_back(
      "The rows in f32 were tried after the rows in 16 bit had come out too fast; the paper does "
      "not "
      "say what tensor parallelism sends. They leave the longest lengths too fast, as all methods "
      "are there.");
  result_.assumption = fmt::format(
      "The rest of the model is two flops a weight and token, evenly shared, at one speed, fitted "
      "to {} with {} at {}K tokens; attention and messages are simulated in bf16, causal, "
      "contiguous chunks. RingAttention is our rsa; tensor parallelism has two all-reduces a "
      "layer, in V3 two all-gathers and reduce-scatters.",
      table_.text(fitted_row_, "model"), table_.text(fitted_row_, "method"),
      whole_number(table_, fitted_row_, "tokens") / 1024);
  return std::move(result_);
}

template <int kNumber>
ReplayResult run(const ReplayContext& context) {
  return FirstToken(context, kNumber).result(context);
}

}  // namespace

const ReplayItem kBurstTable2{"burst/table2", "BurstAttention table 2: first token of LLaMA-7b",
                              "Sun, Zhao et al. 2024, arXiv:2403.09347, table 2", run<2>};
const ReplayItem kBurstTable3{"burst/table3", "BurstAttention table 3: first token of LLaMA-13b",
                              "Sun, Zhao et al. 2024, arXiv:2403.09347, table 3", run<3>};

}  // namespace sp
