// The run file of a real layer.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "harness/papers/real_layer.hpp"
#include "harness/results/environment.hpp"

namespace sp {

void write_real_layer(const std::string& path, const RealLayer& layer,
                      const RealLayerResult& result, const std::string& command_line,
                      const Environment& environment);

}  // namespace sp
