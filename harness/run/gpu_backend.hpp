// The back-ends of GPUs in one process: ranks are threads, rank r on device r, joined by NCCL.
//
// cuda      Real GPUs. After a failure the process must end: NCCL cannot be trusted any more.
// emulated  The same sources on the emulator, which finds faults of its own: the first one is in
//           the text of the Error, and one that failed no rank fails the run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "harness/run/backend.hpp"

// make_backend throws Error(kEnvironment) where there is no device.
namespace sp::cuda {
std::unique_ptr<Backend> make_backend(std::chrono::milliseconds time_limit);
// For the environment record: versions of CUDA and NCCL, the GPUs of this process. Never throws.
std::vector<std::pair<std::string, std::string>> describe_gpus();
}  // namespace sp::cuda
namespace sp::emulated {
std::unique_ptr<Backend> make_backend(std::chrono::milliseconds time_limit);
std::vector<std::pair<std::string, std::string>> describe_gpus();
}  // namespace sp::emulated
