// Cores that the ranks of a run may use: what ideal scaling can be measured against.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace sp {

// Where a thread may run. Launchers bind processes, so ranks of one machine can differ.
struct Placement {
  std::uint64_t host = 0;                // hash of its name
  std::array<std::uint32_t, 32> cpus{};  // one bit per logical CPU
  bool operator==(const Placement&) const = default;
};

Placement placement_of_this_thread();
// Logical CPUs that at least one of the ranks may use, over all hosts; at least 1.
int usable_cores(std::span<const Placement> ranks);

}  // namespace sp
