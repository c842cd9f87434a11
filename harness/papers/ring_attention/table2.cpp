// Ring Attention, table 2: the smallest block whose computation hides its communication.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

// Blocks of c tokens hide their transfer if c >= factor * F / B, with F in flop/s and B in byte/s:
// flops per step grow with c^2, bytes with c. Counted at one size, from which both follow.
double block_factor(std::int64_t block, std::int64_t hidden, std::int64_t heads, int ranks) {
  const Problem problem = softmax_problem(
      {1, block * ranks, heads, heads, hidden / heads, hidden / heads}, DType::kBF16, false);
  const MeasuredPass cost = count("ring/contiguous", problem, {.size = ranks}).most.forward;
  const double c = static_cast<double>(block);
  const double flops_per_step = static_cast<double>(cost.flops) / ranks;
  const double bytes_per_step = static_cast<double>(cost.bytes_sent) / (ranks - 1);
  return bytes_per_step / c / (flops_per_step / (c * c));
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  const double factor = block_factor(config.size("block", 1), config.integer("hidden", 1, 1 << 20),
                                     config.integer("heads", 1, 1 << 10),
                                     static_cast<int>(config.integer("ranks", 2, 4096)));
  ReplayResult result;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& host = table.text(row, "host");
    const double peak = table.number(row, "peak") * 1e12;
    const double bandwidth = table.number(row, "bandwidth") * 1e9;
    const double block = factor * peak / bandwidth;
    const std::string reason =
        fmt::format("{:.5g} flop/s over {:.5g} byte/s are {:.5g} tokens", peak, bandwidth, block);
    result.rows.push_back(row_of(host, "smallest block", "token", cell(table, row, "min_block"),
                                 block, Provenance::kCounted, reason));
    result.rows.push_back(row_of(host, "six blocks", "token", cell(table, row, "min_sequence"),
                                 6 * block, Provenance::kCounted, "six times: " + reason));
  }
  result.findings = {
      "The InfiniBand row does not follow from its own peak and bandwidth: 24 960 tokens, printed "
      "as 24.5 thousand; the other rows do.",
      "The factor six between the two columns counts blocks in memory; hiding the transfer needs "
      "one block per device, so a sequence of one block per device and not of six."};
  result.assumption =
      "Peak speed, no mask, as many key heads as query heads, 16-bit keys and values, one "
      "direction "
      "of the interconnect; flops and bytes of a step are those of ring/contiguous.";
  return result;
}

}  // namespace

const ReplayItem kRingAttentionTable2{"ring_attention/table2",
                                      "Ring Attention table 2: smallest block that hides its "
                                      "transfer",
                                      "Liu, Zaharia, Abbeel 2023, arXiv:2310.01889, table 2", run};

}  // namespace sp
