// The back-ends of GPUs in one process: ranks are threads.
//
// cuda      Real GPUs. After a failure over NCCL the process must end: NCCL cannot be trusted any more.
// emulated  The same sources on the emulator, which finds faults of its own: the first one is in
//           the text of the Error, and one that failed no rank fails the run.
//
// nccl      Rank r on device r, joined by NCCL.
// local     Rank r on device r modulo their number, joined by copies (optimized/comm/local); on the
//           emulator all on one device.
// auto      nccl as long as there are as many devices, else local.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "harness/run/backend.hpp"

namespace sp {
enum class Transport { kAuto, kNccl, kLocal };
}

// make_backend throws Error(kEnvironment) where there is no device.
namespace sp::cuda {
std::unique_ptr<Backend> make_backend(std::chrono::milliseconds time_limit,
                                      Transport transport = Transport::kAuto);
// For the environment record: versions of CUDA and NCCL, the GPUs of this process. Never throws.
std::vector<std::pair<std::string, std::string>> describe_gpus();
}  // namespace sp::cuda
namespace sp::emulated {
std::unique_ptr<Backend> make_backend(std::chrono::milliseconds time_limit,
                                      Transport transport = Transport::kAuto);
std::vector<std::pair<std::string, std::string>> describe_gpus();
}  // namespace sp::emulated
