// A matrix inside a tensor, usually the rows of one head of one sequence, and its way into scratch
// tiles and back.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include "optimized/tensor.hpp"

namespace sp {

// Rows lie row_stride elements apart; the elements of a row are neighbours.
struct Matrix {
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t row_stride = 0;

  template <class T>
  T* row(std::int64_t index) const {
    return reinterpret_cast<T*>(data) + index * row_stride;
  }
  Matrix window(std::int64_t row_begin, std::int64_t row_count, std::int64_t column_begin,
                std::int64_t column_count) const;
  Matrix row_window(std::int64_t begin, std::int64_t count) const {
    return window(begin, count, 0, columns);
  }
};

// [n, d] of a tensor [n, B, H, d].
Matrix head_of(const Tensor& tensor, std::int64_t b, std::int64_t h);

// Calls f.template operator()<T>() with the C++ type of a floating-point dtype; integers never
// reach arithmetic.
template <class F>
decltype(auto) visit_float(DType type, F&& f) {
  SP_CHECK(type != DType::kI32, "arithmetic on integers");
  return type == DType::kF64    ? f.template operator()<double>()
         : type == DType::kBF16 ? f.template operator()<bf16>()
         : type == DType::kF16  ? f.template operator()<f16>()
                                : f.template operator()<float>();
}

// The same with float or double, the type that arithmetic on `type` happens in.
template <class F>
decltype(auto) visit_accumulator(DType type, F&& f) {
  SP_CHECK(type != DType::kI32, "arithmetic on integers");
  return type == DType::kF64 ? f.template operator()<double>() : f.template operator()<float>();
}

template <class T>
constexpr DType dtype_of() {
  return std::is_same_v<T, double> ? DType::kF64 : DType::kF32;
}

// target[i, c] = source[i, c] in rows of `stride` elements; the rest of each row becomes 0.
template <class T>
void pack(T* target, std::int64_t stride, const Matrix& source);
// target[c, i] = source[i, c] in rows of `stride` elements; the rest of each row becomes 0.
template <class T>
void pack_transposed(T* target, std::int64_t stride, const Matrix& source);
// target[i, c] = or += factor source[i, c]; rounds once.
template <class T>
void store(const Matrix& target, const T* source, std::int64_t stride, T factor = 1);
template <class T>
void store_sum(const Matrix& target, const T* source, std::int64_t stride, T factor = 1);

}  // namespace sp
