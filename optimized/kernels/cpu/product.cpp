// Blocked products: packed blocks of both operands, sums in scratch, one store per block.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/product.hpp"

#include <algorithm>

#include "optimized/kernels/cpu/tile.hpp"

namespace sp {
namespace {

// A packed block of b (kDepth x kColumns, 32 KiB of f32) serves kRows rows of a.
constexpr std::int64_t kRows = 256;
constexpr std::int64_t kColumns = 64;
constexpr std::int64_t kDepth = 128;

template <class T>
void pack_operand(T* target, std::int64_t stride, const Operand& source) {
  if (source.transposed) {
    pack_transposed(target, stride, source.matrix);
  } else {
    pack(target, stride, source.matrix);
  }
}

template <class T>
class BlockedProduct {
 public:
  BlockedProduct(Scratch& scratch, const Operand& a, const Operand& b)
      : a_(a),
        b_(b),
        packed_a_(scratch.get<T>(Slot::kQuery, kRows * kDepth)),
        packed_b_(scratch.get<T>(Slot::kKey, kDepth * kColumns)),
        sums_(scratch.get<T>(Slot::kOut, kRows * kColumns)) {
    SP_CHECK(a.columns() == b.rows(), "operands of a product disagree");
  }

  // Calls finish(window of c, sums, stride of sums) for each block of c.
  template <class F>
  void run(const Matrix& c, F finish) {
    SP_CHECK(c.rows == a_.rows() && c.columns == b_.columns(), "a product disagrees with its sum");
    for (std::int64_t column = 0; column < c.columns; column += kColumns) {
      const std::int64_t columns = std::min(kColumns, c.columns - column);
      for (std::int64_t row = 0; row < c.rows; row += kRows) {
        const std::int64_t rows = std::min(kRows, c.rows - row);
        std::fill(sums_, sums_ + rows * kColumns, T{0});
        for (std::int64_t k = 0; k < a_.columns(); k += kDepth) {
          add_block(row, rows, column, columns, k, std::min(kDepth, a_.columns() - k));
        }
        finish(c.window(row, rows, column, columns), sums_, kColumns);
      }
    }
  }

 private:
  void add_block(std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns,
                 std::int64_t k, std::int64_t depth) {
    pack_operand(packed_b_, kColumns, b_.window(k, depth, column, columns));
    const Operand a = a_.window(row, rows, k, depth);
    tile::Product<T> product{.c = sums_,
                             .c_stride = kColumns,
                             .a = packed_a_,
                             .a_row_stride = kDepth,
                             .a_column_stride = 1,
                             .b = packed_b_,
                             .b_stride = kColumns,
                             .rows = rows,
                             .columns = columns,
                             .depth = depth,
                             .accumulate = true};
    if (a.matrix.dtype == dtype_of<T>()) {  // read where it lies
      product.a = a.matrix.template row<T>(0);
      product.a_row_stride = a.transposed ? 1 : a.matrix.row_stride;
      product.a_column_stride = a.transposed ? a.matrix.row_stride : 1;
    } else {
      pack_operand(packed_a_, kDepth, a);
    }
    tile::multiply(product);
  }

  const Operand a_;
  const Operand b_;
  T* packed_a_;  // [kRows, kDepth]
  T* packed_b_;  // [kDepth, kColumns]
  T* sums_;      // [kRows, kColumns]
};

}  // namespace

Operand Operand::window(std::int64_t row_begin, std::int64_t row_count, std::int64_t column_begin,
                        std::int64_t column_count) const {
  if (transposed) return {matrix.window(column_begin, column_count, row_begin, row_count), true};
  return {matrix.window(row_begin, row_count, column_begin, column_count), false};
}

void multiply(Scratch& scratch, const Matrix& c, const Operand& a, const Operand& b,
              double factor) {
  visit_accumulator(c.dtype, [&]<class T>() {
    BlockedProduct<T>(scratch, a, b)
        .run(c, [factor](const Matrix& window, const T* sums, std::int64_t stride) {
          store(window, sums, stride, static_cast<T>(factor));
        });
  });
}

void multiply_add(Scratch& scratch, const Matrix& c, const Operand& a, const Operand& b) {
  visit_accumulator(c.dtype, [&]<class T>() {
    BlockedProduct<T>(scratch, a, b)
        .run(c, [](const Matrix& window, const T* sums, std::int64_t stride) {
          store_sum(window, sums, stride);
        });
  });
}

}  // namespace sp
