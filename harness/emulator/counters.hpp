// Counts what a launch's warps ask of memory.
//
// The k-th accesses of a warp's lanes between two rendezvous are taken for one instruction, if all
// lanes of the warp made the same number of them with the same sizes; other intervals are left out.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sp::emulator {

struct LaneAccess {
  std::uint64_t address;
  std::uint32_t bytes;
};

class AccessCounter {
 public:
  explicit AccessCounter(int threads)
      : shared_(threads_of(threads)), global_(threads_of(threads)) {}

  void shared(int thread, std::uint64_t offset, int bytes) { note(shared_, thread, offset, bytes); }
  void global(int thread, const void* address, int bytes) {
    note(global_, thread, reinterpret_cast<std::uintptr_t>(address), bytes);
  }
  // The lanes first, first + 1, ... of one warp have met: their accesses become requests.
  void flush(int first, int lanes);
  // Adds the counts of one launch to the kernel's.
  void report(const std::string& kernel) const;

 private:
  using Recorded = std::vector<std::vector<LaneAccess>>;  // by thread

  static std::size_t threads_of(int threads) { return static_cast<std::size_t>(threads); }
  static void note(Recorded& recorded, int thread, std::uint64_t address, int bytes) {
    recorded[threads_of(thread)].push_back({address, static_cast<std::uint32_t>(bytes)});
  }

  Recorded shared_, global_;
  std::int64_t shared_requests_ = 0, shared_wavefronts_ = 0;
  std::int64_t global_requests_ = 0, global_sectors_ = 0;
};

// Whether count_accesses() is on.
bool counting();

}  // namespace sp::emulator
