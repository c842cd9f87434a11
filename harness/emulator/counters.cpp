// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/counters.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>

#include "harness/emulator/emulator.hpp"

namespace sp::emulator {
namespace {

std::atomic<bool> enabled = false;
std::mutex mutex;
std::map<std::string, KernelCounts> counts;

using Request = std::span<const LaneAccess>;  // one access per lane

// How often the 32 banks of 4 bytes must be asked: lanes that want the same word share it. A
// request of 8 or 16 bytes per lane goes by halves or quarters of the warp.
std::int64_t wavefronts(Request request) {
  constexpr std::size_t kBanks = 32, kWord = 4;
  const std::size_t words = std::max<std::size_t>(request[0].bytes / kWord, 1);
  const std::size_t lanes_at_once = kBanks / words;
  std::int64_t total = 0;
  std::vector<std::uint64_t> wanted;
  for (std::size_t begin = 0; begin < request.size(); begin += lanes_at_once) {
    wanted.clear();
    for (std::size_t lane = begin; lane < std::min(begin + lanes_at_once, request.size()); ++lane) {
      for (std::size_t w = 0; w < words; ++w) wanted.push_back(request[lane].address / kWord + w);
    }
    std::sort(wanted.begin(), wanted.end());
    wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
    std::array<std::int64_t, kBanks> load{};
    for (const std::uint64_t word : wanted) ++load[word % kBanks];
    total += *std::max_element(load.begin(), load.end());
  }
  return total;
}

std::int64_t sectors(Request request) {
  constexpr std::uint64_t kSector = 32;
  std::vector<std::uint64_t> wanted;
  for (const LaneAccess& access : request) wanted.push_back(access.address / kSector);
  std::sort(wanted.begin(), wanted.end());
  return std::unique(wanted.begin(), wanted.end()) - wanted.begin();
}

// Calls count(request) for the accesses that the lanes made together, and forgets all.
template <class Count>
void for_requests(std::span<std::vector<LaneAccess>> lanes, Count count) {
  const auto same = [&](const std::vector<LaneAccess>& lane) {
    return std::equal(lane.begin(), lane.end(), lanes[0].begin(), lanes[0].end(),
                      [](const LaneAccess& a, const LaneAccess& b) { return a.bytes == b.bytes; });
  };
  if (std::all_of(lanes.begin(), lanes.end(), same)) {
    std::vector<LaneAccess> request(lanes.size());
    for (std::size_t k = 0; k < lanes[0].size(); ++k) {
      for (std::size_t lane = 0; lane < lanes.size(); ++lane) request[lane] = lanes[lane][k];
      count(request);
    }
  }
  for (std::vector<LaneAccess>& lane : lanes) lane.clear();
}

}  // namespace

void AccessCounter::flush(int first, int lanes) {
  if (lanes == 0) return;
  const auto warp = [&](Recorded& recorded) {
    return std::span(recorded).subspan(threads_of(first), threads_of(lanes));
  };
  for_requests(warp(shared_), [&](Request request) {
    ++shared_requests_;
    shared_wavefronts_ += wavefronts(request);
  });
  for_requests(warp(global_), [&](Request request) {
    ++global_requests_;
    global_sectors_ += sectors(request);
  });
}

void AccessCounter::report(const std::string& kernel) const {
  const std::lock_guard lock(mutex);
  KernelCounts& sum = counts[kernel];
  sum.kernel = kernel;
  ++sum.launches;
  sum.shared_requests += shared_requests_;
  sum.shared_wavefronts += shared_wavefronts_;
  sum.global_requests += global_requests_;
  sum.global_sectors += global_sectors_;
}

bool counting() { return enabled.load(std::memory_order_relaxed); }

void count_accesses(bool on) { enabled = on; }

std::vector<KernelCounts> take_counts() {
  const std::lock_guard lock(mutex);
  std::vector<KernelCounts> result;
  for (const auto& [name, row] : counts) result.push_back(row);
  counts.clear();
  return result;
}

}  // namespace sp::emulator
