// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/nvtx.hpp"

#include <vector>

#include "harness/emulator/machine.hpp"

namespace sp::emulator {
namespace {

thread_local std::vector<std::string> ranges;
thread_local const std::string* executing = nullptr;

}  // namespace

const std::string& nvtx_range() {
  static const std::string none;
  return ranges.empty() ? none : ranges.back();
}

int nvtx_depth() { return static_cast<int>(ranges.size()); }

const std::string& kernel_in_hand() { return executing != nullptr ? *executing : nvtx_range(); }
KernelInHand::KernelInHand(const std::string& name) { executing = &name; }
KernelInHand::~KernelInHand() { executing = nullptr; }

int nvtxRangePushA(const char* name) {
  ranges.emplace_back(name);
  return nvtx_depth() - 1;
}

int nvtxRangePop() {
  if (ranges.empty()) {
    record_fault(Fault(FaultKind::kApi, "nvtxRangePop without a range"));
    return -1;
  }
  ranges.pop_back();
  return nvtx_depth();
}

}  // namespace sp::emulator
