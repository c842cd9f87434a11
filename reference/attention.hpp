// Softmax attention, the definition: three nested loops in double on one device.
// reference/README.md has the mathematics.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "reference/problem/problem.hpp"

namespace sp::reference {

// out and lse, and the gradients when inputs.d_out is present; everything in f64. O(N^2) time, O(N)
// memory.
Outputs attention(const Problem& problem, const Inputs& inputs);

// The second oracle, for lengths where O(N^2) is impossible: the same definition for chosen tokens
// only. Results are [B, rows, H, .] with one row per entry of `tokens`; lse is [B, H, rows]. O(rows
// N) time. Rows of out, lse and d_q are exact on their own.
Outputs attention_rows(const Problem& problem, const Inputs& inputs,
                       std::span<const std::int64_t> tokens);

// Rows of d_k, d_v and, when projected, of d_projection_k, d_projection_v. They need the
// log-sum-exp and delta = sum(d_out out) of every query, which are taken from a result whose out
// and lse rows were sampled before: lse [B, H, N], out [B, N, H, E].
Outputs attention_key_rows(const Problem& problem, const Inputs& inputs, const HostTensor& out,
                           const HostTensor& lse, std::span<const std::int64_t> tokens);

}  // namespace sp::reference
