// The back-ends of GPUs in one process: ranks are threads.
//
// cuda      Real GPUs. After a failure it goes on if they still work.
// emulated  The same sources on the emulator, which finds faults of its own: the first one is in
//           the text of the Error, and one that failed no rank fails the run.
//
// nccl      Rank r on device r, joined by NCCL.
// local     Rank r on device r modulo their number, joined by copies (optimized/comm/local); on the
//           emulator two ranks, or more where it has few, on each.
// auto      nccl as long as there are as many devices, else local.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "harness/run/backend.hpp"

namespace sp {
enum class Transport { kAuto, kNccl, kLocal };
// Whether ranks that have met over NCCL stay together for the next run; fresh: every run leaves its
// devices as it found them, and is checked for that where the emulator counts.
enum class Worlds { kKept, kFresh };
}  // namespace sp

// make_backend throws Error(kEnvironment) where there is no device.
namespace sp::cuda {
std::unique_ptr<Backend> make_backend(std::chrono::milliseconds time_limit,
                                      Transport transport = Transport::kAuto,
                                      Worlds worlds = Worlds::kKept);
// For the environment record: versions of CUDA and NCCL, the GPUs of this process. Never throws.
std::vector<std::pair<std::string, std::string>> describe_gpus();
}  // namespace sp::cuda
namespace sp::emulated {
std::unique_ptr<Backend> make_backend(std::chrono::milliseconds time_limit,
                                      Transport transport = Transport::kAuto,
                                      Worlds worlds = Worlds::kFresh);
std::vector<std::pair<std::string, std::string>> describe_gpus();
}  // namespace sp::emulated
