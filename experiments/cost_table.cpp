// SPDX-License-Identifier: Apache-2.0
#include "experiments/cost_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "harness/run/dry_run.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp {
namespace {

// 64K causal tokens, 32 query heads on 8 key heads of size 128, bf16.
Problem example_for(Family family) {
  Problem problem;
  problem.shape = {1, 65536, 32, 8, 128, 128};
  problem.dtype = DType::kBF16;
  problem.scale = default_scale(problem.shape);
  problem.mask.causal = family != Family::kProjectedSoftmax;
  if (family == Family::kProjectedSoftmax) problem.projected = 256;
  if (family == Family::kLinear || family == Family::kHybrid) problem.module = Module::kBasic;
  if (family == Family::kHybrid) problem.layers = "LLLN";
  return problem;
}

// MiB of the rank with most, and the work of the busiest rank over the mean.
std::string row_of(const Algorithm& algorithm) {
  constexpr World kWorld{8, 4};
  const Problem problem = example_for(algorithm.family);
  const Layout layout(algorithm.sharding, problem.shape.N, kWorld.size);
  std::array<std::int64_t, 4> most{};
  std::int64_t busiest = 0, flops = 0;
  for (int rank = 0; rank < kWorld.size; ++rank) {
    const Cost cost = algorithm.cost(problem, layout, kWorld, rank);
    const DryRun dry = dry_run(algorithm, problem, kWorld, rank);
    const std::array mine{cost.forward.bytes_sent, cost.backward.bytes_sent,
                          dry.forward.done.peak_bytes, dry.backward.done.peak_bytes};
    for (std::size_t i = 0; i < most.size(); ++i) most[i] = std::max(most[i], mine[i]);
    busiest = std::max(busiest, cost.forward.flops);
    flops += cost.forward.flops;
  }
  std::string row = fmt::format("| `{}` |", algorithm.id);
  for (const std::int64_t bytes : most)
    row += fmt::format(" {:.0f} |", static_cast<double>(bytes) / 0x1p20);
  return row + fmt::format(" {:.2f} |\n",
                           static_cast<double>(busiest) * kWorld.size / static_cast<double>(flops));
}

}  // namespace

std::string cost_table(bool linear) {
  std::string table =
      "| id | sent forward | sent backward | peak forward | peak backward | imbalance |\n"
      "| --- | --- | --- | --- | --- | --- |\n";
  for (const Algorithm* algorithm : algorithms()) {
    const Family family = algorithm->family;
    if ((family == Family::kLinear || family == Family::kHybrid) == linear)
      table += row_of(*algorithm);
  }
  return table;
}

}  // namespace sp
