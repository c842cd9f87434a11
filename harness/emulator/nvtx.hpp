// Names of kernels: the innermost NVTX range of the thread that launches one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace sp::emulator {

// Innermost range of the calling thread; empty outside all ranges.
const std::string& nvtx_range();
// Ranges of the calling thread that are open.
int nvtx_depth();

// The kernel that the calling thread executes; outside one, its innermost range.
const std::string& kernel_in_hand();
class KernelInHand {
 public:
  explicit KernelInHand(const std::string& name);  // must outlive this
  ~KernelInHand();
  KernelInHand(const KernelInHand&) = delete;
  KernelInHand& operator=(const KernelInHand&) = delete;
};

}  // namespace sp::emulator
