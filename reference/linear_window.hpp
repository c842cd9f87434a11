// The window part of Based: softmax attention over the last tokens, added to linear attention.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "reference/problem/problem.hpp"

namespace sp::reference {

// Both do nothing without a window.
void add_window(const Problem& problem, const Inputs& inputs, Outputs& sum);
// Rows of `tokens`, each from its neighbourhood alone: the window's width of tokens on both sides.
void add_window_rows(const Problem& problem, const Inputs& inputs,
                     std::span<const std::int64_t> tokens, Outputs& sum);

}  // namespace sp::reference
