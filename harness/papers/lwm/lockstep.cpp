// LWM: what a causal mask costs a ring over contiguous shards, whose ranks wait at every step.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <utility>

#include "harness/papers/counted.hpp"
#include "harness/papers/formula.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

double efficiency(Sharding sharding, int ranks) {
  return ranks / 2.0 / lockstep_blocks(sharding, ranks);
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  const std::vector<std::int64_t> sizes = config.integers("ranks", 2, 256);
  constexpr Sharding kShardings[] = {Sharding::kContiguous, Sharding::kStriped, Sharding::kZigzag};
  ReplayResult result;
  for (const Sharding sharding : kShardings) {
    ReplayCurve curve{.plot = "Efficiency of a causal ring that waits at every step",
                      .name = fmt::format("ring/{}", name_of(sharding)),
                      .x = "ranks (1)",
                      .y = "evenly shared work / busiest rank's (1)",
                      .provenance = Provenance::kCounted,
                      .xs = {},
                      .ys = {}};
    for (const std::int64_t size : sizes) {
      const int ranks = static_cast<int>(size);
      const double ours = efficiency(sharding, ranks);
      curve.xs.push_back(ranks);
      curve.ys.push_back(ours);
      PaperValue paper;
      for (std::size_t row = 0; row < table.rows(); ++row) {
        if (table.text(row, "sharding") == name_of(sharding))
          paper = {evaluate(table.text(row, "efficiency"), {{"P", ranks}}), table.grade(row), 0};
      }
      result.rows.push_back(row_of(fmt::format("{}, {} ranks", name_of(sharding), ranks),
                                   "efficiency of causal attention", "1", paper, ours,
                                   Provenance::kCounted));
    }
    result.curves.push_back(std::move(curve));
  }
  result.findings = {
      fmt::format("LWM's rings of 2 and 4 ranks use {:.0f} % and {:.0f} % of their time for causal "
                  "attention; a striped or zigzag sharding would use all of it.",
                  100 * efficiency(Sharding::kContiguous, 2),
                  100 * efficiency(Sharding::kContiguous, 4)),
      "Longer rings approach one half: a mask that hides half of the work saves no time."};
  result.assumption =
      "Every step lasts as long as its busiest rank, transfers are hidden, and blocks are long: a "
      "diagonal counts half a block.";
  return result;
}

}  // namespace

const ReplayItem kLwmLockstep{"lwm/lockstep", "LWM: lock-step efficiency of contiguous shards",
                              "Liu, Yan, Zaharia, Abbeel 2024, arXiv:2402.08268, released code",
                              run};

}  // namespace sp
