// Back-ends by name, for the command line.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "experiments/commands.hpp"
#include "harness/results/environment.hpp"
#include "harness/run/backend.hpp"

namespace sp {

struct BackendInfo {
  const char* name;
  const char* description;
  std::string absence;  // why this build lacks it and what builds it; empty: it is here
  bool built() const { return absence.empty(); }
};
const std::vector<BackendInfo>& backends();

constexpr const char* kDefaultPlatform = "dgx_a100";

// Throws Error(kUsage) for an unknown name, Error(kEnvironment) for one that this build lacks. A
// platform is for `sim` alone, a transport (nccl or local) for cuda and emulated; empty: the default.
std::unique_ptr<Backend> make_backend(const std::string& name, std::chrono::milliseconds time_limit,
                                      Command& command, const std::string& platform = "",
                                      const std::string& transport = "");

// The environment record, with the GPUs where this build knows them.
Environment capture_environment_with_gpus();

}  // namespace sp
