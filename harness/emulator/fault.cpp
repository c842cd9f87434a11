// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/fault.hpp"

namespace sp::emulator {

const char* name_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::kOutOfBounds:
      return "out of bounds";
    case FaultKind::kMisaligned:
      return "misaligned";
    case FaultKind::kUninitialised:
      return "uninitialised";
    case FaultKind::kUseAfterFree:
      return "use after free";
    case FaultKind::kRace:
      return "race";
    case FaultKind::kBlockRace:
      return "race between blocks";
    case FaultKind::kOrder:
      return "missing order";
    case FaultKind::kDivergentBarrier:
      return "divergent barrier";
    case FaultKind::kAsyncCopy:
      return "asynchronous copy";
    case FaultKind::kResources:
      return "resources";
    case FaultKind::kCollective:
      return "collective";
    case FaultKind::kDeadlock:
      return "deadlock";
    case FaultKind::kApi:
      return "forbidden call";
  }
  return "fault";
}

}  // namespace sp::emulator
