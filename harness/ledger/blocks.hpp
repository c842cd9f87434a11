// Rows of operands, read and found to be where a kernel was told.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "harness/ledger/books.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp::ledger {

std::vector<std::int64_t> positions_of(const Tokens& tokens);

// Row (i, b, h) of an operand. In stacks the queries of a layer are the outputs of the one before it,
// and gradients of outputs the d_q of the one after it: complete rows of token n and local head h.
Place read_operand(const Books& books, const Tensor& tensor, Operand operand, std::int64_t i,
                   std::int64_t b, std::int64_t h, std::int64_t n);

// The head of the books that the rows (b, h) of a tensor are. Throws Error(kInternal) if they are
// not all of batch b and one head, or not at `positions`.
std::int64_t head_of(const Books& books, const Tensor& tensor, Operand operand,
                     const std::vector<std::int64_t>& positions, std::int64_t b, std::int64_t h);

// Whether the mask that a kernel was given lets query i see key j.
bool sees(const MaskTerms& mask, std::int64_t b, std::int64_t i, std::int64_t j);

void expect_scale(double scale, double expected);

}  // namespace sp::ledger
