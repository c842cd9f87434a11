// From tokens to the stream and from logits to the loss: look-ups and rows of a vocabulary.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "optimized/kernels/cpu/cpu_dense_kernels.hpp"
#include "optimized/kernels/cpu/row_access.hpp"

namespace sp {
namespace {

// f(i, place in the part) for every id that lies in [first, first + count).
template <class F>
void for_each_here(const Tensor& ids, std::int64_t first, std::int64_t count, F&& f) {
  for (std::int64_t i = 0; i < ids.elements(); ++i) {
    const std::int64_t place = ids.as<std::int32_t>()[i] - first;
    if (0 <= place && place < count) f(i, place);
  }
}

}  // namespace

void CpuDenseKernels::do_embed(const Tensor& y, const Tensor& table, const Tensor& ids,
                               std::int64_t first) {
  visit_accumulator(y.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, table);
    const std::int64_t C = read.columns();
    for_each_here(ids, first, read.rows(), [&](std::int64_t i, std::int64_t place) {
      const T* const from = read(place);
      T* const to = y.as<T>() + i * C;
      for (std::int64_t c = 0; c < C; ++c) to[c] += from[c];
    });
  });
}

void CpuDenseKernels::do_embed_backward(const Tensor& d_table, const Tensor& d_y, const Tensor& ids,
                                        std::int64_t first) {
  visit_accumulator(d_table.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, d_y);
    const std::int64_t C = read.columns();
    for_each_here(ids, first, d_table.extent(0), [&](std::int64_t i, std::int64_t place) {
      const T* const from = read(i);
      T* const to = d_table.as<T>() + place * C;
      for (std::int64_t c = 0; c < C; ++c) to[c] += from[c];
    });
  });
}

void CpuDenseKernels::do_vocabulary_rows(const Tensor& lse, const Tensor& picked,
                                         const Tensor& logits, const Tensor& targets,
                                         std::int64_t first) {
  const Matrix rows = rows_of(logits);
  visit_accumulator(lse.dtype(), [&]<class T>() {
    T* const row = scratch_.get<T>(Slot::kScores, tile::padded(rows.columns));
    for (std::int64_t i = 0; i < rows.rows; ++i) {
      pack(row, tile::padded(rows.columns), rows.row_window(i, 1));
      const std::int64_t place = targets.as<std::int32_t>()[i] - first;
      picked.as<T>()[i] = 0 <= place && place < rows.columns ? row[place] : T{0};
      const T largest = tile::row_max(row, rows.columns);
      lse.as<T>()[i] = largest + std::log(tile::exp_row(row, rows.columns, largest));
    }
  });
}

void CpuDenseKernels::do_cross_entropy(const Tensor& loss, const Tensor& lse, const Tensor& picked,
                                       const Tensor& weights) {
  visit_accumulator(loss.dtype(), [&]<class T>() {
    double sum = 0;
    for (std::int64_t i = 0; i < lse.elements(); ++i) {
      const T weight = weights.as<T>()[i];
      if (weight != 0)
        sum +=
            static_cast<double>(weight) * static_cast<double>(lse.as<T>()[i] - picked.as<T>()[i]);
    }
    *loss.as<T>() += static_cast<T>(sum);
  });
}

void CpuDenseKernels::do_cross_entropy_backward(const Tensor& d_logits, const Tensor& logits,
                                                const Tensor& lse, const Tensor& targets,
                                                const Tensor& weights, std::int64_t first) {
  const Matrix from = rows_of(logits), to = rows_of(d_logits);
  visit_accumulator(lse.dtype(), [&]<class T>() {
    T* const row = scratch_.get<T>(Slot::kScores, tile::padded(from.columns));
    for (std::int64_t i = 0; i < from.rows; ++i) {
      const T weight = weights.as<T>()[i];
      if (weight == 0) {
        std::fill_n(row, from.columns, T{0});
      } else {
        pack(row, tile::padded(from.columns), from.row_window(i, 1));
        tile::exp_row(row, from.columns, lse.as<T>()[i]);
        const std::int64_t place = targets.as<std::int32_t>()[i] - first;
        if (0 <= place && place < from.columns) row[place] -= 1;
        for (std::int64_t c = 0; c < from.columns; ++c) row[c] *= weight;
      }
      store(to.row_window(i, 1), row, from.columns);
    }
  });
}

}  // namespace sp
