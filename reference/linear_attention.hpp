// Linear attention, the definition as a recurrence over the tokens, in double on one device.
// reference/README.md has the mathematics; linear_sums.hpp has the same definition as sums.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "reference/problem/problem.hpp"

namespace sp::reference {

// out, and the gradients when inputs.d_out is present; everything in f64, lse absent. O(N F E) time
// with F features per head; memory of the results and, with a decay, N/64 states of one head.
Outputs linear_attention(const Problem& problem, const Inputs& inputs);

// The same for chosen tokens, [B, rows, H or G, .] with one row per entry of `tokens`, for lengths
// where the tensors of the results are too large: out, d_q, d_k and d_v with the bits of the full
// result. One sweep over all tokens forward and one back, two unless causal; inputs are widened token
// by token. Throws Error(kUsage) for a token that does not exist.
Outputs linear_attention_rows(const Problem& problem, const Inputs& inputs,
                              std::span<const std::int64_t> tokens);

}  // namespace sp::reference
