// Kernels without a product: fill, copy, add, merge, delta.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/matrix.hpp"
#include "optimized/kernels/cpu/tile.hpp"
#include "optimized/kernels/cpu/token_tiles.hpp"

namespace sp {
namespace {

// A row of a tensor along its last axis.
template <class T>
struct Row {
  T* data;
  std::int64_t stride;
  T& operator[](std::int64_t i) const { return data[i * stride]; }
};

template <class T>
Row<T> row_of(const Tensor& tensor, std::int64_t i, std::int64_t b, std::int64_t h) {
  const std::int64_t offset = i * tensor.stride(0) + b * tensor.stride(1) + h * tensor.stride(2);
  return {tensor.as<T>() + offset, tensor.stride(3)};
}

// Calls f(row of target, row of source, elements) until every element was in one row; tensors
// without gaps are one row.
template <class T, class S, class F>
void for_each_row(const Tensor& target, const Tensor& source, F f) {
  if (target.elements() == 0) return;
  if (target.contiguous() && source.contiguous()) {
    f(Row<T>{target.as<T>(), 1}, Row<S>{source.as<S>(), 1}, target.elements());
    return;
  }
  for (std::int64_t i = 0; i < target.extent(0); ++i) {
    for (std::int64_t b = 0; b < target.extent(1); ++b) {
      for (std::int64_t h = 0; h < target.extent(2); ++h) {
        f(row_of<T>(target, i, b, h), row_of<S>(source, i, b, h), target.extent(3));
      }
    }
  }
}

template <class T, class S>
void copy_row(Row<T> target, Row<S> source, std::int64_t count) {
  if constexpr (std::is_same_v<T, float> && (std::is_same_v<S, bf16> || std::is_same_v<S, f16>)) {
    if (target.stride == 1 && source.stride == 1) {
      return tile::widen_row(target.data, source.data, count);
    }
  }
  if constexpr (std::is_same_v<T, S>) {
    for (std::int64_t i = 0; i < count; ++i) target[i] = source[i];
  } else {
    for (std::int64_t i = 0; i < count; ++i) target[i] = narrow<T>(widen(source[i]));
  }
}

// into = (a into + b from) / (a + b) with a = exp(lse of into), b = exp(lse of from).
template <class T, class S>
void merge_row(T* into, T& into_lse, const S* from, T from_lse, std::int64_t count) {
  constexpr T kNothing = -std::numeric_limits<T>::infinity();
  if (from_lse == kNothing) return;
  if (into_lse == kNothing) {
    for (std::int64_t e = 0; e < count; ++e) into[e] = static_cast<T>(widen(from[e]));
    into_lse = from_lse;
    return;
  }
  const T largest = std::max(into_lse, from_lse);
  const T a = std::exp(into_lse - largest);
  const T b = std::exp(from_lse - largest);
  const T sum = a + b;
  for (std::int64_t e = 0; e < count; ++e) {
    into[e] = (a * into[e] + b * static_cast<T>(widen(from[e]))) / sum;
  }
  into_lse = largest + std::log(sum);
}

}  // namespace

void CpuKernels::do_fill(const Tensor& target, double value) {
  visit_dtype(target.dtype(), [&]<class T>() {
    const T element = narrow<T>(value);
    for_each_row<T, T>(target, target, [element](Row<T> row, Row<T>, std::int64_t count) {
      for (std::int64_t i = 0; i < count; ++i) row[i] = element;
    });
  });
}

void CpuKernels::do_copy(const Tensor& target, const Tensor& source) {
  const bool integers = target.dtype() == DType::kI32;
  SP_CHECK(integers == (source.dtype() == DType::kI32), "integers are copied to integers only");
  if (integers) {
    return for_each_row<std::int32_t, std::int32_t>(target, source,
                                                    copy_row<std::int32_t, std::int32_t>);
  }
  visit_float(target.dtype(), [&]<class T>() {
    visit_float(source.dtype(),
                [&]<class S>() { for_each_row<T, S>(target, source, copy_row<T, S>); });
  });
}

void CpuKernels::do_add(const Tensor& target, const Tensor& source) {
  visit_accumulator(target.dtype(), [&]<class T>() {
    visit_float(source.dtype(), [&]<class S>() {
      for_each_row<T, S>(target, source, [](Row<T> into, Row<S> from, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i) into[i] += static_cast<T>(widen(from[i]));
      });
    });
  });
}

void CpuKernels::do_merge(const Partial& into, const Partial& from) {
  SP_CHECK(into.lse.dtype() == into.out.dtype() && from.lse.dtype() == into.lse.dtype(),
           "partial results that merge hold one accumulator type");
  visit_accumulator(into.out.dtype(), [&]<class T>() {
    visit_float(from.out.dtype(), [&]<class S>() {
      for (std::int64_t b = 0; b < into.out.extent(1); ++b) {
        for (std::int64_t h = 0; h < into.out.extent(2); ++h) {
          const Matrix out = head_of(into.out, b, h);
          const Matrix lse = head_of(into.lse, b, h);
          const Matrix from_out = head_of(from.out, b, h);
          const Matrix from_lse = head_of(from.lse, b, h);
          for (std::int64_t i = 0; i < out.rows; ++i) {
            merge_row(out.row<T>(i), *lse.row<T>(i), from_out.row<S>(i), *from_lse.row<T>(i),
                      out.columns);
          }
        }
      }
    });
  });
}

void CpuKernels::do_attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) {
  const std::int64_t stride = tile::padded(out.extent(3));
  visit_accumulator(delta.dtype(), [&]<class T>() {
    T* left = scratch_.get<T>(Slot::kGradient, kTileRows * stride);
    T* right = scratch_.get<T>(Slot::kOut, kTileRows * stride);
    for (std::int64_t b = 0; b < out.extent(1); ++b) {
      for (std::int64_t h = 0; h < out.extent(2); ++h) {
        const Matrix sums = head_of(delta, b, h);
        for (std::int64_t begin = 0; begin < out.extent(0); begin += kTileRows) {
          const std::int64_t rows = std::min(kTileRows, out.extent(0) - begin);
          pack(left, stride, head_of(d_out, b, h).row_window(begin, rows));
          pack(right, stride, head_of(out, b, h).row_window(begin, rows));
          for (std::int64_t i = 0; i < rows; ++i) {
            *sums.row<T>(begin + i) = std::inner_product(
                left + i * stride, left + i * stride + out.extent(3), right + i * stride, T{0});
          }
        }
      }
    }
  });
}

}  // namespace sp
