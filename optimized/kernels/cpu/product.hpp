// Products of matrices of any size and any floating-point type, blocked into packed tiles.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cpu/matrix.hpp"
#include "optimized/kernels/cpu/scratch.hpp"

namespace sp {

// A matrix as it is, or read with rows and columns exchanged.
struct Operand {
  Matrix matrix;
  bool transposed = false;
  std::int64_t rows() const { return transposed ? matrix.columns : matrix.rows; }
  std::int64_t columns() const { return transposed ? matrix.rows : matrix.columns; }
  Operand window(std::int64_t row_begin, std::int64_t row_count, std::int64_t column_begin,
                 std::int64_t column_count) const;
};
inline Operand transposed(const Matrix& matrix) { return {matrix, true}; }

// c = factor a b, or c += factor a b. c holds the accumulator type.
void multiply(Scratch& scratch, const Matrix& c, const Operand& a, const Operand& b, double factor);
void multiply_add(Scratch& scratch, const Matrix& c, const Operand& a, const Operand& b);

}  // namespace sp
