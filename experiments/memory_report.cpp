// SPDX-License-Identifier: Apache-2.0
#include "experiments/memory_report.hpp"

#include <fmt/format.h>

#include "harness/run/dry_run.hpp"

namespace sp {
namespace {

double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / 0x1p20; }

}  // namespace

std::string memory_text(const Algorithm& algorithm, const Problem& problem, const World& world,
                        bool backward) {
  DryPass fullest;
  int where = -1;
  for (int rank = 0; rank < world.size; ++rank) {
    const DryRun run = dry_run(algorithm, problem, world, rank);
    const DryPass& pass = backward ? run.backward : run.forward;
    if (where >= 0 && pass.done.peak_bytes <= fullest.done.peak_bytes) continue;
    fullest = pass;
    where = rank;
  }
  std::string text = fmt::format(
      "# memory of {} on {} ranks, {} tokens: rank {} holds most, in {} {:.1f} MiB beyond what it "
      "was given; then live\n",
      algorithm.id, world.size, problem.shape.N, where, backward ? "backward" : "forward",
      mebibytes(fullest.done.peak_bytes));
  for (const LiveTensors& live : fullest.at_peak)
    text += fmt::format("#   {:<14} {:>3} {:>12.1f} MiB\n", live.name, live.count,
                        mebibytes(live.bytes));
  return text;
}

}  // namespace sp
