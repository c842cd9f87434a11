// SIMD primitives of linear attention on small dense tiles; layout and dispatch as in tile.hpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace sp::tile {

// target[c, r] = source[r, c]
template <class T>
struct Transposition {
  T* target;
  std::int64_t target_stride;
  const T* source;
  std::int64_t source_stride;
  std::int64_t rows;  // of the source
  std::int64_t columns;
};
void transpose(const Transposition<float>& p);
void transpose(const Transposition<double>& p);

// target = or += factor x y, element by element; target may be x or y.
void product_row(float* target, const float* x, const float* y, float factor, std::int64_t count);
void product_row(double* target, const double* x, const double* y, double factor,
                 std::int64_t count);
void add_product_row(float* target, const float* x, const float* y, float factor,
                     std::int64_t count);
void add_product_row(double* target, const double* x, const double* y, double factor,
                     std::int64_t count);

// row -= share row, rounded once: a factor 1 - share close to 1 keeps all its digits.
void shrink_row(float* row, std::int64_t count, float share);
void shrink_row(double* row, std::int64_t count, double share);

// Tokens of a gated block: pairs inside it are decayed step by step, never by a quotient.
inline constexpr std::int64_t kGatedRows = 16;

// At most kGatedRows tokens with one decay per channel between neighbours: gates[j] leads from
// token j-1 to token j.
template <class T>
struct GatedScores {
  T* scores;  // [rows, kGatedRows]: sum over c of q[j, c] k[c, i] gates[i+1, c] .. gates[j, c]; 0
              // where i > j
  std::int64_t score_stride;
  const T* q;  // [rows, depth]
  std::int64_t q_stride;
  const T* k_transposed;  // [depth, kGatedRows]
  std::int64_t k_stride;
  const T* gates;  // [rows, depth]
  std::int64_t gate_stride;
  std::int64_t rows;
  std::int64_t depth;
};
void gated_scores(const GatedScores<float>& block);
void gated_scores(const GatedScores<double>& block);

// out[j] = sum over i <= j of weights[j, i] x[i] gates[i+1] .. gates[j]. Strides of rows may be
// negative: then time runs backwards.
template <class T>
struct GatedSums {
  T* out;  // [rows, depth]
  std::int64_t out_stride;
  const T* weights;  // [rows, rows]
  std::int64_t weight_row_stride;
  std::int64_t weight_column_stride;
  const T* x;  // [rows, depth]
  std::int64_t x_stride;
  const T* gates;  // [rows, depth], the first row is not read
  std::int64_t gate_stride;
  std::int64_t rows;
  std::int64_t depth;
};
void gated_sums(const GatedSums<float>& block);
void gated_sums(const GatedSums<double>& block);

}  // namespace sp::tile
