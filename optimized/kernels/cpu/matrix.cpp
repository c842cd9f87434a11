// Packing a window of a tensor into padded scratch rows, and storing such rows back.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/matrix.hpp"

#include <algorithm>
#include <cstring>

#include "optimized/kernels/cpu/tile.hpp"

namespace sp {
namespace {

template <class T, class S>
void widen_elements(T* target, const S* source, std::int64_t count) {
  if constexpr (std::is_same_v<T, float> && sizeof(S) == 2) {
    tile::widen_row(target, source, count);
  } else {
    for (std::int64_t i = 0; i < count; ++i) target[i] = static_cast<T>(widen(source[i]));
  }
}

}  // namespace

Matrix Matrix::window(std::int64_t row_begin, std::int64_t row_count, std::int64_t column_begin,
                      std::int64_t column_count) const {
  Matrix part = *this;
  const std::int64_t offset = row_begin * row_stride + column_begin;
  part.data += offset * static_cast<std::int64_t>(size_of(dtype));
  part.rows = row_count;
  part.columns = column_count;
  return part;
}

Matrix head_of(const Tensor& tensor, std::int64_t b, std::int64_t h) {
  SP_CHECK(tensor.extent(3) <= 1 || tensor.stride(3) == 1, "elements of a row must be neighbours");
  const std::int64_t offset = b * tensor.stride(1) + h * tensor.stride(2);
  std::byte* data = tensor.data() + offset * static_cast<std::int64_t>(size_of(tensor.dtype()));
  return {data, tensor.dtype(), tensor.extent(0), tensor.extent(3), tensor.stride(0)};
}

template <class T>
void pack(T* target, std::int64_t stride, const Matrix& source) {
  visit_float(source.dtype, [&]<class S>() {
    for (std::int64_t i = 0; i < source.rows; ++i, target += stride) {
      widen_elements(target, source.row<S>(i), source.columns);
      std::fill(target + source.columns, target + stride, T{0});
    }
  });
}

template <class T>
void pack_transposed(T* target, std::int64_t stride, const Matrix& source) {
  visit_float(source.dtype, [&]<class S>() {
    for (std::int64_t i = 0; i < source.rows; ++i) {
      const S* row = source.row<S>(i);
      for (std::int64_t c = 0; c < source.columns; ++c) {
        target[c * stride + i] = static_cast<T>(widen(row[c]));
      }
    }
  });
  for (std::int64_t c = 0; c < source.columns; ++c) {
    std::fill(target + c * stride + source.rows, target + (c + 1) * stride, T{0});
  }
}

template <class T>
void store(const Matrix& target, const T* source, std::int64_t stride, T factor) {
  visit_float(target.dtype, [&]<class S>() {
    for (std::int64_t i = 0; i < target.rows; ++i, source += stride) {
      S* row = target.row<S>(i);
      for (std::int64_t c = 0; c < target.columns; ++c) row[c] = narrow<S>(factor * source[c]);
    }
  });
}

template <class T>
void store_sum(const Matrix& target, const T* source, std::int64_t stride, T factor) {
  SP_CHECK(size_of(target.dtype) == sizeof(T), "sums are kept in the accumulator type");
  for (std::int64_t i = 0; i < target.rows; ++i, source += stride) {
    T* row = target.row<T>(i);
    for (std::int64_t c = 0; c < target.columns; ++c) row[c] += factor * source[c];
  }
}

template void pack(float*, std::int64_t, const Matrix&);
template void pack(double*, std::int64_t, const Matrix&);
template void pack_transposed(float*, std::int64_t, const Matrix&);
template void pack_transposed(double*, std::int64_t, const Matrix&);
template void store(const Matrix&, const float*, std::int64_t, float);
template void store(const Matrix&, const double*, std::int64_t, double);
template void store_sum(const Matrix&, const float*, std::int64_t, float);
template void store_sum(const Matrix&, const double*, std::int64_t, double);

}  // namespace sp
