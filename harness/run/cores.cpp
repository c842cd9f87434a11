// SPDX-License-Identifier: Apache-2.0
#include "harness/run/cores.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <string_view>

namespace sp {

Placement placement_of_this_thread() {
  constexpr std::size_t kBits = 32;
  Placement placement;
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) == 0)
    placement.host = std::hash<std::string_view>{}(name.data());
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return placement;
  for (std::size_t cpu = 0; cpu < placement.cpus.size() * kBits; ++cpu) {
    if (CPU_ISSET(cpu, &set)) placement.cpus[cpu / kBits] |= std::uint32_t{1} << (cpu % kBits);
  }
  return placement;
}

int usable_cores(std::span<const Placement> ranks) {
  std::map<std::uint64_t, Placement> hosts;
  for (const Placement& rank : ranks) {
    Placement& host = hosts[rank.host];
    std::transform(host.cpus.begin(), host.cpus.end(), rank.cpus.begin(), host.cpus.begin(),
                   std::bit_or<std::uint32_t>());
  }
  int count = 0;
  for (const auto& [name, host] : hosts) {
    for (const std::uint32_t word : host.cpus) count += std::popcount(word);
  }
  return std::max(1, count);
}

}  // namespace sp
