// The attention of a layer as operations of a tape: reference/attention.hpp and linear_attention.hpp in
// f64.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/model/tape.hpp"
#include "reference/problem/problem.hpp"

namespace sp::reference {

// What linear attention may have besides; null where its module has none. The decay of a channel per
// token is [B N, H D], that of a head [1, H].
struct LinearParameters {
  Variable log_decay, gamma, beta;
};

// Operands [B N, heads * size], tokens of one sequence one after the other. The problem says shape,
// mask, scale and, for linear attention, the module; its dtype is f64.
Variable attend(Tape& tape, const Problem& problem, const Variable& q, const Variable& k,
                const Variable& v, const LinearParameters& parameters = {});

}  // namespace sp::reference
