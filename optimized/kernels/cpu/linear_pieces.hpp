// Cutting a chunk of tokens into documents, and what every pass over a chunk needs of tensors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "optimized/kernels/cpu/matrix.hpp"
#include "optimized/kernels/cpu/tile.hpp"
#include "optimized/kernels/linear.hpp"

namespace sp {

// Tokens of one chunk that belong to one document.
struct Piece {
  std::int64_t begin = 0;  // local index
  std::int64_t count = 0;
  bool continues = false;  // the document has tokens before the chunk
};

// Every token of the chunk once, in order; only the first piece can continue a document. Without a
// causal mask the chunk is one piece that continues.
std::vector<Piece> pieces_of(const Run& tokens, const LinearTerms& terms, std::int64_t b);

// Whether a document begins at one of these positions; position 0 begins one.
bool begins_document(const Run& tokens, const LinearTerms& terms, std::int64_t b);

// An operand of a product that may be read by rows or by columns.
template <class T>
struct Strided {
  const T* data;
  std::int64_t row_stride;
  std::int64_t column_stride;
};
template <class T>
Strided<T> by_rows(const T* data, std::int64_t stride) {
  return {data, stride, 1};
}
template <class T>
Strided<T> by_columns(const T* data, std::int64_t stride) {
  return {data, 1, stride};
}

struct Extent {
  std::int64_t rows, columns, depth;
};

// c = or += a b
template <class T>
void multiply(T* c, std::int64_t c_stride, const Strided<T>& a, const T* b, std::int64_t b_stride,
              const Extent& extent, bool accumulate) {
  tile::multiply(tile::Product<T>{.c = c,
                                  .c_stride = c_stride,
                                  .a = a.data,
                                  .a_row_stride = a.row_stride,
                                  .a_column_stride = a.column_stride,
                                  .b = b,
                                  .b_stride = b_stride,
                                  .rows = extent.rows,
                                  .columns = extent.columns,
                                  .depth = extent.depth,
                                  .accumulate = accumulate});
}

// [F, W] of a state [F, B, SH, W] into rows of padded(W) and back; an undefined state is 0.
template <class T>
void load_state(T* target, const Tensor& state, std::int64_t b, std::int64_t s, std::int64_t F,
                std::int64_t W);
template <class T>
void store_state(const Tensor& state, const T* source, std::int64_t b, std::int64_t s,
                 std::int64_t W);

}  // namespace sp
