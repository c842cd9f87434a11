// Faults: what the emulator finds wrong with a program.
//
// Device side  A fault ends the kernel. As on a GPU the device's error then sticks: every later call
//              for that device returns it, and cudaGetErrorString() tells the whole story.
// Host side    A call that breaks the rules (mismatched collective, unknown stream, ...) returns the
//              documented error, with the same story.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace sp::emulator {

enum class FaultKind : std::uint8_t {
  kOutOfBounds,
  kMisaligned,
  kUninitialised,
  kUseAfterFree,
  kRace,              // lanes or warps of a block, without a barrier between
  kBlockRace,         // blocks of one launch
  kOrder,             // operations that no event orders
  kDivergentBarrier,  // or warp operation that not all lanes meet
  kAsyncCopy,         // touched while a copy into it is under way
  kResources,         // more than the named GPU has
  kCollective,        // counts, types or peers of NCCL calls that do not fit
  kDeadlock,
  kApi,  // a call that its documentation forbids
};
const char* name_of(FaultKind kind);

class Fault : public std::runtime_error {
 public:
  Fault(FaultKind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
  FaultKind kind() const { return kind_; }

 private:
  FaultKind kind_;
};

}  // namespace sp::emulator
