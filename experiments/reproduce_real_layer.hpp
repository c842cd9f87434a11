// The item that is a real run of minutes on threads, with options of its own.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "experiments/commands.hpp"

namespace sp {

inline constexpr const char* kRealLayer = "lasp2/real-2048k";

// As typed.
struct RealLayerWords {
  std::string tokens = "2M", out;
  std::int64_t heads = 16;
  int ranks = 64;
  std::uint64_t seed = 1;
};

void add_real_layer_options(const CommandLine& sub, RealLayerWords& words);
// Throws Error(kUsage) if any was given.
void refuse_real_layer_options(const CommandLine& sub);
int reproduce_real_layer(const RealLayerWords& words, bool json, const std::string& out_dir,
                         const Command& command);

}  // namespace sp
