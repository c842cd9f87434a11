// LASP-2, table 6: memory over lengths and GPUs, and how much of an iteration attention explains.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/lasp2/layers.hpp"
#include "harness/papers/rows.hpp"
#include "optimized/algorithms/lasp2.hpp"

namespace sp {
namespace {

constexpr double kMega = 1e6, kGiga = 1e9, kMebi = 0x1p20;

// GB per GPU against tokens per GPU.
struct Line {
  double fixed = 0, per_token = 0;
};

Line memory_line(const Config& config) {
  const PaperTable fits = table_of(config, "fits");
  for (std::size_t row = 0; row < fits.rows(); ++row) {
    if (fits.text(row, "model").starts_with("memory GB: a + b*C"))
      return {fits.number(row, "a"), fits.number(row, "b")};
  }
  config.refuse("fits", "the line of the memory is missing");
}

class Table6 {
 public:
  explicit Table6(const ReplayContext& context)
      : model_(context), table_(table_of(context.config)), line_(memory_line(context.config)) {}

  ReplayResult result(const ReplayContext& context) {
    for (std::size_t row = 0; row < table_.rows(); ++row) {
      memory(row);
      if (table_.text(row, "status") == "ok") throughput(row);
      context.progress(static_cast<std::int64_t>(row) + 1,
                       static_cast<std::int64_t>(table_.rows()));
    }
    memory_of_attention();
    conclude();
    return std::move(result_);
  }

 private:
  void memory(std::size_t row);
  void throughput(std::size_t row);
  void memory_of_attention();
  void conclude();
  std::string label(std::size_t row) const {
    return fmt::format("{} tokens, {} GPUs", kibi(whole_number(table_, row, "tokens")),
                       rank_count(table_, row, "gpus"));
  }

  Lasp2Model model_;
  PaperTable table_;
  Line line_;
  std::map<std::int64_t, std::set<double>> by_chunk_;  // printed memory by tokens per GPU
  std::map<int, std::array<ReplayCurve, 2>> curves_;   // paper and ours by GPU count
  double least_share_ = 1, most_share_ = 0;
  ReplayResult result_;
};

// The line is fitted to chunks of 2K to 16K; longer ones are predicted.
void Table6::memory(std::size_t row) {
  const std::int64_t chunk = whole_number(table_, row, "tokens") / rank_count(table_, row, "gpus");
  if (table_.text(row, "status") == "ok") {
    by_chunk_[chunk].insert(table_.number(row, "memory"));
    return;
  }
  const double predicted = line_.fixed + line_.per_token * static_cast<double>(chunk);
  result_.rows.push_back(
      claim_row(label(row), "out of memory",
                predicted * kGiga > model_.platform.device.memory_bytes, Provenance::kFormula,
                fmt::format("the line of the memory gives {:.3g} GB at {} tokens a GPU", predicted,
                            kibi(chunk)),
                Grade::kPrinted));
}

void Table6::throughput(std::size_t row) {
  const std::int64_t tokens = whole_number(table_, row, "tokens");
  const int gpus = rank_count(table_, row, "gpus");
  const double iteration = static_cast<double>(tokens) / table_.number(row, "throughput");
  const double layers =
      static_cast<double>(model_.layers) * model_.layer(kLasp2, tokens, gpus).total_s();
  ReplayRow whole =
      not_checkable(label(row), "throughput", "token/s", table_.number(row, "throughput"),
                    "training of the whole model: projections, feed-forward layers, "
                    "vocabulary, optimiser and the host");
  result_.rows.push_back(whole);
  ReplayRow share = context_row(label(row), "attention layers of an iteration", "s", layers,
                                Provenance::kSimulated);
  share.band = model_.platform.band;
  result_.rows.push_back(share);
  least_share_ = std::min(least_share_, layers / iteration);
  most_share_ = std::max(most_share_, layers / iteration);
  std::array<ReplayCurve, 2>& pair = curves_[gpus];
  pair[0].from_paper = true;
  pair[0].ys.push_back(iteration);
  pair[1].ys.push_back(layers);
  for (ReplayCurve& curve : pair) {
    curve.plot = "An iteration, and its attention layers";
    curve.name = fmt::format("{}, {} GPUs", curve.from_paper ? "table 6" : "attention", gpus);
    curve.x = "sequence length (tokens)";
    curve.y = "time (s)";
    curve.xs.push_back(static_cast<double>(tokens));
  }
}

// What the layers' tensors take, and what grows with the GPUs: the gathered states.
void Table6::memory_of_attention() {
  const auto peak = [&](std::int64_t chunk, int gpus) {
    const Problem problem =
        linear_problem(Module::kBasic, model_.shape(chunk * gpus), DType::kBF16);
    return static_cast<double>(count("lasp2", problem, {.size = gpus}).most.forward.peak_bytes);
  };
  const int few = rank_count(table_, 0, "gpus");
  const int many = model_.platform.devices();
  constexpr std::int64_t kShort = 8192, kLong = 16384;
  // For backward a layer keeps q, k, v and its output, in bf16.
  const double kept = 4 * 2 * static_cast<double>(model_.heads * model_.head_size) *
                      static_cast<double>(model_.layers);
  const double during = (peak(kLong, few) - peak(kShort, few)) / (kLong - kShort);
  const double gathered = peak(kShort, many) - peak(kShort, few);
  result_.rows.push_back(context_row("attention layers", "kept for backward per token of a GPU",
                                     "MB", kept / kMega, Provenance::kCounted));
  result_.rows.push_back(context_row("attention layer, forward", "live per token of a GPU", "MB",
                                     during / kMega, Provenance::kCounted));
  result_.rows.push_back(context_row(
      fmt::format("attention layer, forward, {} GPUs instead of {}", many, few),
      "more memory at the same tokens per GPU", "MiB", gathered / kMebi, Provenance::kCounted));
  result_.findings.push_back(fmt::format(
      "Memory is {:.1f} GB and {:.2f} MB per token that a GPU holds; {:.2f} MB of that, {:.0f} %, "
      "are queries, keys, values and outputs of the attention layers. The rest is the model's.",
      line_.fixed, line_.per_token * kGiga / kMega, kept / kMega,
      100 * kept / (line_.per_token * kGiga)));
  result_.findings.push_back(fmt::format(
      "The gathered states are all that grows with the GPUs at the same tokens per GPU: {:.0f} MiB "
      "from {} to {} GPUs, once, not per layer. With states of hidden size squared, as section 3.4 "
      "counts them for every head, it would be {} times as much, and the table excludes that.",
      gathered / kMebi, few, many, model_.heads * model_.heads));
}

void Table6::conclude() {
  const bool alone =
      std::ranges::all_of(by_chunk_, [](const auto& chunk) { return chunk.second.size() == 1; });
  result_.rows.push_back(claim_row("all GPU counts",
                                   "memory depends on the tokens per GPU alone, to 0.1 GB", alone,
                                   Provenance::kFormula, "some rows differ", Grade::kPrinted));
  result_.findings.push_back(fmt::format(
      "Attention layers explain {:.2g} % to {:.2g} % of the iterations: the throughput of this "
      "table says nothing about the communication of states.",
      100 * least_share_, 100 * most_share_));
  for (auto& [gpus, pair] : curves_) {
    for (ReplayCurve& curve : pair) result_.curves.push_back(std::move(curve));
  }
  result_.assumption =
      "The largest chunk that fits is decided by a line through the printed memory of 2K to 16K "
      "tokens per GPU and by 80 GiB of device memory; lengths beyond are predicted. Throughput "
      "belongs to the training of the whole model.";
}

ReplayResult run(const ReplayContext& context) { return Table6(context).result(context); }

}  // namespace

const ReplayItem kLasp2Table6{"lasp2/table6",
                              "LASP-2 table 6: memory over lengths and GPUs, attention's share",
                              "Sun et al. 2025, LASP-2, arXiv:2502.07563, table 6", run};

}  // namespace sp
