// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/registry.hpp"

namespace sp {
namespace {

constexpr std::span<const Algorithm* const> kAlgorithms{};

}  // namespace

std::span<const Algorithm* const> algorithms() { return kAlgorithms; }

const Algorithm* find_algorithm(std::string_view id) {
  for (const Algorithm* algorithm : algorithms()) {
    if (algorithm->id == id) return algorithm;
  }
  return nullptr;
}

}  // namespace sp
