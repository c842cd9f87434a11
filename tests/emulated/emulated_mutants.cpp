// Hunts mutants on the emulated GPUs: `gpu`, the faults that only GPU code has, or `same PART OF`,
// every n-th of the mutants that the other back-ends meet too; `local PART OF` the same over copies
// instead of NCCL. One line each; a survivor fails.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <string_view>

#include "harness/emulator/gpu_mutants.hpp"
#include "harness/run/gpu_backend.hpp"

namespace {

constexpr std::int64_t kMostCases = 150;
constexpr std::uint64_t kSeed = 20;

struct Count {
  int mutants = 0, killed = 0;
};

// Small worlds, one sequence, few heads: a tile of a tensor core costs the same however few of its
// rows are in use. Sums in storage hide behind the rounding of the tensor cores until they are long.
sp::Mutant on_small_problems(sp::Mutant mutant, bool local) {
  const std::string_view id = mutant.id;
  if (id == "carry_in_storage" || id == "gradient_carry_in_storage") {
    mutant.pins.ranks = {id == "carry_in_storage" || local ? 8 : 16};
    mutant.pins.tokens = 64;
    mutant.pins.heads = mutant.pins.kv_heads = 1;
    mutant.pins.dtype = sp::DType::kBF16;
  }
  // Cases that a fault cannot touch only take time.
  if (id.starts_with("window_")) mutant.pins.window = 7;
  if (id.starts_with("documents_")) mutant.pins.segments = true;
  if (id == "decays_in_storage") mutant.pins.dtype = sp::DType::kBF16;
  // With fewer ranks DistFlashAttn returns results in its first step only.
  if (id == "returned_lse_stale") mutant.pins.ranks = {5};
  if (mutant.pins.ranks.empty()) mutant.pins.ranks = {2, 3, 4};
  if (!mutant.pins.batch) mutant.pins.batch = 1;
  mutant.pins.most_heads = 4;
  return mutant;
}

// Faults that GPUs cannot have, or that are none there. Labels do not travel with NCCL's messages;
// a host that edits a buffer in flight waits for the device first, so that it is not in flight any
// more; a partial result that is rounded to storage errs no more than its rounded probabilities may.
bool only_on_hosts(const sp::Mutant& mutant) {
  const std::string_view id = mutant.id;
  return id == "step_mislabelled" || id == "sent_buffer_overwritten" ||
         id == "receive_buffer_touched" || id == "partial_in_storage";
}

void hunt_one(sp::Backend& backend, const sp::Mutant& mutant, Count& count) {
  ++count.mutants;
  bool killed = true;
  for (const sp::MutantVerdict& verdict : sp::hunt(backend, {}, mutant, kMostCases, kSeed, true)) {
    killed = killed && verdict.killed;
    fmt::print("{:<30} {:<26} {:<8} case {:>3}  {}\n    first: {}\n", mutant.id, verdict.algorithm,
               verdict.killed ? "killed" : "SURVIVED", verdict.cases, verdict.how.substr(0, 160),
               verdict.first.empty() ? "-" : verdict.first);
  }
  count.killed += killed ? 1 : 0;
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view which = argc > 1 ? argv[1] : "gpu";
  const auto backend =
      sp::emulated::make_backend(std::chrono::milliseconds(1500),
                                 which == "local" ? sp::Transport::kLocal : sp::Transport::kNccl);
  Count count;
  if (which == "gpu") {
    const std::string_view only = argc > 2 ? argv[2] : "";
    for (const sp::emulator::GpuMutant& each : sp::emulator::gpu_mutants()) {
      if (!only.empty() && only != each.mutant.id) continue;
      sp::emulator::plant(each.sabotage);
      hunt_one(*backend, each.mutant, count);
      sp::emulator::plant({});
    }
  } else {
    const int part = argc > 3 ? std::atoi(argv[2]) : 0, parts = argc > 3 ? std::atoi(argv[3]) : 1;
    std::vector<sp::Mutant> all = sp::all_mutants();
    std::erase_if(all, only_on_hosts);
    for (int i = part; i < static_cast<int>(all.size()); i += parts)
      hunt_one(*backend, on_small_problems(all[static_cast<std::size_t>(i)], which == "local"),
               count);
  }
  fmt::print("mutants: {} killed of {}\n", count.killed, count.mutants);
  return count.mutants > 0 && count.killed == count.mutants ? 0 : 1;
}
