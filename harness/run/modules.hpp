// Which modules of linear attention an algorithm serves, asked of the algorithm itself.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

struct ModuleAnswer {
  Module module;
  std::string refusal;  // why the algorithm never serves it; empty: it does
};
// The answers to the plainest problem of every module that the algorithm's family knows; none for
// softmax attention.
std::vector<ModuleAnswer> ask_modules(const Algorithm& algorithm);
std::vector<Module> modules_served(const Algorithm& algorithm);

}  // namespace sp
