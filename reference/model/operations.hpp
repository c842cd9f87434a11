// The operations between attention layers, forward and backward; README.md has the equations. Every
// sum runs from left to right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "reference/model/tape.hpp"

namespace sp::reference {

// y = x WT + b for W [to, from] and b [1, to]; b may be null.
Variable project(Tape& tape, const Variable& x, const Variable& weight, const Variable& bias);
Variable add(Tape& tape, const Variable& x, const Variable& y);
Variable multiply(Tape& tape, const Variable& x, const Variable& y);  // element by element

Variable silu(Tape& tape, const Variable& x);  // x / (1 + e^-x)
Variable gelu(Tape& tape, const Variable& x);  // x Phi(x), by the error function
Variable tanh(Tape& tape, const Variable& x);
// log(1 / (1 + e^-x)) factor
Variable log_sigmoid(Tape& tape, const Variable& x, double factor);

// Of every run of gain's size in a row: x / sqrt(mean x^2 + epsilon) gain.
Variable rms_norm(Tape& tape, const Variable& x, const Variable& gain, double epsilon);
// Of every row: (x - mean) / sqrt(variance + epsilon) gain + bias.
Variable layer_norm(Tape& tape, const Variable& x, const Variable& gain, const Variable& bias,
                    double epsilon);

// Every head of a row [heads * size]: channels c and c + size / 2 turn by position(row) base^(-2c /
// size) (RoFormer, section 3.4.2, in Llama's pairing). Angles are in double.
Variable rotate(Tape& tape, const Variable& x, Index size, double base,
                const std::vector<Index>& positions);

// Rows `ids` of a table; row i of the result is left 0 where ids[i] is negative.
Variable look_up(Tape& tape, const Variable& table, const std::vector<std::int32_t>& ids);
// Rows of x.
Variable pick_rows(Tape& tape, const Variable& x, const std::vector<Index>& rows);

// The sum over rows of weight (log-sum-exp of the row - its target's logit); rows of weight 0 have no
// part in it, whatever they hold.
Variable cross_entropy(Tape& tape, const Variable& logits, const std::vector<std::int32_t>& targets,
                       const std::vector<double>& weights);

}  // namespace sp::reference
