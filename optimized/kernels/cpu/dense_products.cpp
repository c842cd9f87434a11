// Products of activations and weights.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cpu/cpu_dense_kernels.hpp"
#include "optimized/kernels/cpu/product.hpp"
#include "optimized/kernels/cpu/row_access.hpp"

namespace sp {

// In strips of rows: products hold the accumulator type, and y is rounded once, with its bias.
void CpuDenseKernels::do_product(const Tensor& y, const Tensor& x, const Tensor& weight,
                                 const Tensor& bias) {
  constexpr std::int64_t kStrip = 256;
  const Matrix from = rows_of(x), to = rows_of(y);
  visit_accumulator(y.dtype(), [&]<class T>() {
    T* const sums = scratch_.get<T>(Slot::kScores, std::min(kStrip, to.rows) * to.columns);
    const T* const added = bias.defined() ? RowReader<T>(scratch_, Slot::kValue, bias)(0) : nullptr;
    for (std::int64_t begin = 0; begin < to.rows; begin += kStrip) {
      const std::int64_t rows = std::min(kStrip, to.rows - begin);
      const Matrix strip{reinterpret_cast<std::byte*>(sums), dtype_of<T>(), rows, to.columns,
                         to.columns};
      multiply(scratch_, strip, {from.row_window(begin, rows)}, transposed(rows_of(weight)), 1);
      for (std::int64_t i = 0; added != nullptr && i < rows; ++i) {
        T* const row = strip.row<T>(i);
        for (std::int64_t c = 0; c < to.columns; ++c) row[c] += added[c];
      }
      store(to.row_window(begin, rows), sums, to.columns);
    }
  });
}

void CpuDenseKernels::do_product_d_x(const Tensor& d_x, const Tensor& d_y, const Tensor& weight) {
  multiply_add(scratch_, rows_of(d_x), {rows_of(d_y)}, {rows_of(weight)});
}

void CpuDenseKernels::do_product_d_weight(const Tensor& d_weight, const Tensor& d_bias,
                                          const Tensor& d_y, const Tensor& x) {
  multiply_add(scratch_, rows_of(d_weight), transposed(rows_of(d_y)), {rows_of(x)});
  if (!d_bias.defined()) return;
  visit_accumulator(d_bias.dtype(), [&]<class T>() {
    RowReader<T> rows(scratch_, Slot::kValue, d_y);
    T* const sum = d_bias.as<T>();
    for (std::int64_t i = 0; i < rows.rows(); ++i) {
      const T* const row = rows(i);
      for (std::int64_t c = 0; c < rows.columns(); ++c) sum[c] += row[c];
    }
  });
}

}  // namespace sp
