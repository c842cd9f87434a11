// SIMD primitives on small dense tiles in scratch memory; everything else about a tile is plain
// C++.
//
// Layout     A row starts anywhere and has room for padded(n) elements: primitives may read and
// write the padding, but its contents never reach a result.
// Dispatch   The widest instruction set of this machine is chosen at run time; results depend on
// the operands and on that choice only. NaN in an operand reaches the result.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "reference/problem/dtype.hpp"

namespace sp::tile {

inline constexpr std::int64_t kPad = 16;  // elements; one AVX-512 vector of f32

constexpr std::int64_t padded(std::int64_t elements) { return (elements + kPad - 1) / kPad * kPad; }

// C[rows, columns] (+)= A[rows, depth] B[depth, columns]. A has any strides, so that a transposed A
// costs nothing; rows of B and C are padded.
template <class T>
struct Product {
  T* c;
  std::int64_t c_stride;
  const T* a;
  std::int64_t a_row_stride;
  std::int64_t a_column_stride;
  const T* b;
  std::int64_t b_stride;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t depth;
  bool accumulate;
};

void multiply(const Product<float>& product);
void multiply(const Product<double>& product);

// row *= factor
void scale(float* row, std::int64_t count, float factor);
void scale(double* row, std::int64_t count, double factor);

// Largest element, -inf of none.
float row_max(const float* row, std::int64_t count);
double row_max(const double* row, std::int64_t count);

// row = exp(row - shift); returns the sum. Exact where row == shift (1) and where row is -inf (0).
float exp_row(float* row, std::int64_t count, float shift);
double exp_row(double* row, std::int64_t count, double shift);

// Sum of p x; an x where p is 0 is not looked at.
float weighted_sum(const float* p, const float* x, std::int64_t count);
double weighted_sum(const double* p, const double* x, std::int64_t count);

// dp = scale p (dp - delta), exactly 0 where p is 0, whatever dp is there.
void softmax_gradient(float* dp, const float* p, std::int64_t count, float delta, float scale);
void softmax_gradient(double* dp, const double* p, std::int64_t count, double delta, double scale);

// Exact conversions; neither side needs padding.
void widen_row(float* target, const bf16* source, std::int64_t count);
void widen_row(float* target, const f16* source, std::int64_t count);

}  // namespace sp::tile
