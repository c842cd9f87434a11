// LASP-2, table 5: what it costs to gather the states in pieces.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>

#include "harness/papers/items.hpp"
#include "harness/papers/lasp2/layers.hpp"
#include "harness/papers/rows.hpp"
#include "optimized/algorithms/lasp2.hpp"

namespace sp {
namespace {

constexpr double kMilli = 1e-3, kMicro = 1e-6;

// The same machine without any latency: what is left of a split is bytes.
Platform without_latency(Platform platform) {
  platform.node.latency_s = platform.fabric.latency_s = 0;
  platform.comm.operation_s = platform.comm.step_s = 0;
  return platform;
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const Lasp2Model model(context);
  const PaperTable table = table_of(config);
  const int ranks = static_cast<int>(config.integer("ranks", 2, model.platform.devices()));
  const std::int64_t tokens = config.size("tokens", 1);
  const auto layers = static_cast<double>(model.layers);
  const Platform instant = without_latency(model.platform);
  const auto seconds = [&](const Platform& on, int splits) {
    return layers * model.layer(on, kLasp2, model.shape(tokens), ranks, splits).total_s();
  };
  const double whole = seconds(model.platform, 1), whole_instant = seconds(instant, 1);
  ReplayResult result;
  ReplayCurve ours{"Iteration time over that of the unsplit gather",
                   "lasp2",
                   "pieces of a state",
                   "ratio (1)",
                   false,
                   Provenance::kSimulated,
                   {},
                   {}};
  ReplayCurve paper = ours;
  paper.name = "table 5";
  paper.from_paper = true;
  const double iteration = static_cast<double>(tokens) / table.number(0, "throughput");
  double most = 0, most_paper = 0, collectives = 0, bytes_alone = 0;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const int splits = static_cast<int>(whole_number(table, row, "splits", 1 << 16));
    const std::string label = fmt::format("{} pieces", splits);
    const double more = seconds(model.platform, splits) - whole;
    const double throughput = table.number(row, "throughput");
    const double paper_more = static_cast<double>(tokens) / throughput - iteration;
    const auto add = [&](const char* quantity, double value) {
      ReplayRow made = context_row(label, quantity, "ms", value / kMilli, Provenance::kSimulated);
      made.band = model.platform.band;
      result.rows.push_back(made);
      return &result.rows.back();
    };
    ours.xs.push_back(splits);
    ours.ys.push_back(1 + more / iteration);
    paper.xs.push_back(splits);
    paper.ys.push_back(1 + paper_more / iteration);
    add("attention layers of an iteration", more + whole);
    if (splits == 1) continue;
    ReplayRow* judged_row = add("time of an iteration over the unsplit one's", more);
    judged_row->paper = paper_more / kMilli;
    judged_row->grade = Grade::kDerived;
    // Throughputs are rounded to whole tokens per second, both of them.
    judged_row->rounding = 2 * iteration / throughput * table.rounding(row, "throughput") / kMilli;
    *judged_row = judged(*judged_row);
    // To the nanosecond, as the engine tells moments apart.
    bytes_alone = 1e-9 * std::round(1e9 * std::abs(seconds(instant, splits) - whole_instant));
    add("the same without latencies", bytes_alone);
    if (more < most) continue;
    most = more;
    most_paper = paper_more;
    collectives = 2 * layers * (splits - 1);
  }
  result.curves = {paper, ours};
  result.findings = {
      fmt::format("{:.0f} further collectives cost {:.3g} ms, {:.3g} us each, {:.3g} % of the "
                  "paper's iteration; in the paper they cost {:.3g} ms, {:.3g} us each.",
                  collectives, most / kMilli, most / collectives / kMicro, 100 * most / iteration,
                  most_paper / kMilli, most_paper / collectives / kMicro),
      fmt::format(
          "Without latencies the same split costs {:.3g} ms: bytes do not change, so all of "
          "it is the start of collectives. The table is flat if they all hide behind other "
          "work of the iteration ({:.3g} s, of which attention is {:.3g} ms), or if the "
          "split does not issue them; a layer's own work is too short to hide them.",
          bytes_alone / kMilli, iteration, whole / kMilli),
      "The paper's four means agree to 0.005 %, while its table 6 scatters by several percent."};
  result.assumption = fmt::format(
      "{} attention layers, forward and backward, one after the other; a collective of {} ranks "
      "takes at least the latency of its steps and pieces of a state follow each other on one "
      "stream.",
      model.layers, ranks);
  return result;
}

}  // namespace

const ReplayItem kLasp2Table5{"lasp2/table5", "LASP-2 table 5: states gathered in 1 to 64 pieces",
                              "Sun et al. 2025, LASP-2, arXiv:2502.07563, table 5", run};

}  // namespace sp
