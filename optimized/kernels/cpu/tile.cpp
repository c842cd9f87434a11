// The SIMD primitives, compiled once per instruction set by Highway.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/tile.hpp"

#include <algorithm>
#include <limits>

// Machines without AVX2 get the portable target; vectors without a fixed size cannot form arrays.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optimized/kernels/cpu/tile.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, as Highway demands.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sp::tile::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Lanes = hn::ScalableTag<T>;

template <class T>
constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(Lanes<T>()));

// A register block is kBlockRows x kBlockVectors sums, one vector of B per column, one broadcast of
// A: 24 + 4 + 1 of the 32 registers of AVX-512, 12 + 2 + 1 of 16 elsewhere.
constexpr int kBlockRows = 6;
constexpr int kBlockVectors = HWY_TARGET == HWY_AVX3 ? 4 : 2;

template <int kRows, int kVectors, class T>
HWY_INLINE void multiply_block(const Product<T>& p, std::int64_t row, std::int64_t column) {
  const Lanes<T> d;
  hn::Vec<Lanes<T>> sum[kRows][kVectors];
  T* c = p.c + row * p.c_stride + column;
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      sum[i][v] = p.accumulate ? hn::LoadU(d, c + i * p.c_stride + v * kLanes<T>) : hn::Zero(d);
    }
  }
  const T* a = p.a + row * p.a_row_stride;
  const T* b = p.b + column;
  const std::int64_t a_row_stride = p.a_row_stride;
  const std::int64_t a_column_stride = p.a_column_stride;
  const std::int64_t b_stride = p.b_stride;
  for (std::int64_t k = p.depth; k > 0; --k, a += a_column_stride, b += b_stride) {
    hn::Vec<Lanes<T>> right[kVectors];
    for (int v = 0; v < kVectors; ++v) right[v] = hn::LoadU(d, b + v * kLanes<T>);
    for (int i = 0; i < kRows; ++i) {
      const auto left = hn::Set(d, a[i * a_row_stride]);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(left, right[v], sum[i][v]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[i][v], d, c + i * p.c_stride + v * kLanes<T>);
    }
  }
}

template <int kRows, int kVectors, class T>
void multiply_last_rows(const Product<T>& p, std::int64_t row, std::int64_t column) {
  if constexpr (kRows > 0) {
    if (p.rows - row == kRows) return multiply_block<kRows, kVectors>(p, row, column);
    multiply_last_rows<kRows - 1, kVectors>(p, row, column);
  }
}

// All columns that fit into register blocks of kVectors, from `column` on.
template <int kVectors, class T>
std::int64_t multiply_columns(const Product<T>& p, std::int64_t column) {
  constexpr std::int64_t kWidth = kVectors * kLanes<T>;
  for (; column + kWidth <= padded(p.columns); column += kWidth) {
    std::int64_t row = 0;
    for (; row + kBlockRows <= p.rows; row += kBlockRows) {
      multiply_block<kBlockRows, kVectors>(p, row, column);
    }
    multiply_last_rows<kBlockRows - 1, kVectors>(p, row, column);
  }
  return column;
}

template <class T>
void multiply_any(const Product<T>& p) {
  std::int64_t column = multiply_columns<kBlockVectors>(p, 0);
  if constexpr (kBlockVectors > 2) column = multiply_columns<2>(p, column);
  multiply_columns<1>(p, column);
}

// Calls f(first element, mask of the elements inside the row) for every vector of a row.
template <class T, class F>
HWY_INLINE void for_each_vector(std::int64_t count, F f) {
  const Lanes<T> d;
  for (std::int64_t i = 0; i < count; i += kLanes<T>) {
    f(i, hn::FirstN(d, static_cast<std::size_t>(std::min(count - i, kLanes<T>))));
  }
}

template <class T>
void scale_any(T* row, std::int64_t count, T factor) {
  const Lanes<T> d;
  const auto by = hn::Set(d, factor);
  for (std::int64_t i = 0; i < count; i += kLanes<T>) {
    hn::StoreU(hn::Mul(hn::LoadU(d, row + i), by), d, row + i);
  }
}

template <class T>
T row_max_any(const T* row, std::int64_t count) {
  const Lanes<T> d;
  const auto lowest = hn::Set(d, -std::numeric_limits<T>::infinity());
  auto largest = lowest;
  for_each_vector<T>(count, [&](std::int64_t i, auto inside) HWY_ATTR {
    largest = hn::Max(largest, hn::IfThenElse(inside, hn::LoadU(d, row + i), lowest));
  });
  return hn::GetLane(hn::MaxOfLanes(d, largest));
}

// Arguments below -200 (f32) or -2000 (f64) give 0 whatever they are; the clamp keeps the
// conversion to an exponent in range. Exp alone would turn NaN into 0.
template <class V>
HWY_INLINE V exp_of(V x) {
  using T = hn::TFromV<V>;
  const hn::DFromV<V> d;
  const V lowest = hn::Set(d, static_cast<T>(sizeof(T) == 4 ? -200 : -2000));
  const V y = hn::Exp(d, hn::Max(x, lowest));
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

template <class T>
T exp_row_any(T* row, std::int64_t count, T shift) {
  const Lanes<T> d;
  const auto by = hn::Set(d, shift);
  auto sum = hn::Zero(d);
  for_each_vector<T>(count, [&](std::int64_t i, auto inside) HWY_ATTR {
    const auto p = hn::IfThenElseZero(inside, exp_of(hn::Sub(hn::LoadU(d, row + i), by)));
    hn::StoreU(p, d, row + i);
    sum = hn::Add(sum, p);
  });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <class T>
T weighted_sum_any(const T* p, const T* x, std::int64_t count) {
  const Lanes<T> d;
  auto sum = hn::Zero(d);
  for_each_vector<T>(count, [&](std::int64_t i, auto inside) HWY_ATTR {
    const auto weight = hn::IfThenElseZero(inside, hn::LoadU(d, p + i));
    const auto unseen = hn::Eq(weight, hn::Zero(d));
    sum = hn::MulAdd(weight, hn::IfThenZeroElse(unseen, hn::LoadU(d, x + i)), sum);
  });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <class T>
void softmax_gradient_any(T* dp, const T* p, std::int64_t count, T delta, T scale) {
  const Lanes<T> d;
  const auto shift = hn::Set(d, delta);
  const auto factor = hn::Set(d, scale);
  for (std::int64_t i = 0; i < count; i += kLanes<T>) {
    const auto weight = hn::LoadU(d, p + i);
    const auto change = hn::Mul(hn::Mul(weight, hn::Sub(hn::LoadU(d, dp + i), shift)), factor);
    hn::StoreU(hn::IfThenZeroElse(hn::Eq(weight, hn::Zero(d)), change), d, dp + i);
  }
}

template <class Half, class Element>
void widen_row_any(float* target, const Element* source, std::int64_t count) {
  const Lanes<float> d;
  const hn::Rebind<std::uint16_t, Lanes<float>> bits;
  const hn::Rebind<Half, Lanes<float>> half;
  // Highway's portable conversions take infinite f16 for 65536.
  constexpr bool kPortable = HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128;
  const std::int64_t vectorized = kPortable ? 0 : count - count % kLanes<float>;
  std::int64_t i = 0;
  for (; i < vectorized; i += kLanes<float>) {
    const auto* address = reinterpret_cast<const std::uint16_t*>(source + i);
    hn::StoreU(hn::PromoteTo(d, hn::BitCast(half, hn::LoadU(bits, address))), d, target + i);
  }
  for (; i < count; ++i) target[i] = to_float(source[i]);
}

// One name per type: a dispatch table holds addresses of plain functions.
void MultiplyF32(const Product<float>& p) { multiply_any(p); }
void MultiplyF64(const Product<double>& p) { multiply_any(p); }
void ScaleF32(float* row, std::int64_t n, float by) { scale_any(row, n, by); }
void ScaleF64(double* row, std::int64_t n, double by) { scale_any(row, n, by); }
float RowMaxF32(const float* row, std::int64_t n) { return row_max_any(row, n); }
double RowMaxF64(const double* row, std::int64_t n) { return row_max_any(row, n); }
float ExpRowF32(float* row, std::int64_t n, float shift) { return exp_row_any(row, n, shift); }
double ExpRowF64(double* row, std::int64_t n, double shift) { return exp_row_any(row, n, shift); }
float WeightedSumF32(const float* p, const float* x, std::int64_t n) {
  return weighted_sum_any(p, x, n);
}
double WeightedSumF64(const double* p, const double* x, std::int64_t n) {
  return weighted_sum_any(p, x, n);
}
void SoftmaxGradientF32(float* dp, const float* p, std::int64_t n, float delta, float scale) {
  softmax_gradient_any(dp, p, n, delta, scale);
}
void SoftmaxGradientF64(double* dp, const double* p, std::int64_t n, double delta, double scale) {
  softmax_gradient_any(dp, p, n, delta, scale);
}
void WidenBF16(float* target, const bf16* source, std::int64_t n) {
  widen_row_any<hwy::bfloat16_t>(target, source, n);
}
void WidenF16(float* target, const f16* source, std::int64_t n) {
  widen_row_any<hwy::float16_t>(target, source, n);
}

}  // namespace sp::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sp::tile {

HWY_EXPORT(MultiplyF32);
HWY_EXPORT(MultiplyF64);
HWY_EXPORT(ScaleF32);
HWY_EXPORT(ScaleF64);
HWY_EXPORT(RowMaxF32);
HWY_EXPORT(RowMaxF64);
HWY_EXPORT(ExpRowF32);
HWY_EXPORT(ExpRowF64);
HWY_EXPORT(WeightedSumF32);
HWY_EXPORT(WeightedSumF64);
HWY_EXPORT(SoftmaxGradientF32);
HWY_EXPORT(SoftmaxGradientF64);
HWY_EXPORT(WidenBF16);
HWY_EXPORT(WidenF16);

void multiply(const Product<float>& p) { HWY_DYNAMIC_DISPATCH(MultiplyF32)(p); }
void multiply(const Product<double>& p) { HWY_DYNAMIC_DISPATCH(MultiplyF64)(p); }
void scale(float* row, std::int64_t count, float factor) {
  HWY_DYNAMIC_DISPATCH(ScaleF32)(row, count, factor);
}
void scale(double* row, std::int64_t count, double factor) {
  HWY_DYNAMIC_DISPATCH(ScaleF64)(row, count, factor);
}
float row_max(const float* row, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(RowMaxF32)(row, count);
}
double row_max(const double* row, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(RowMaxF64)(row, count);
}
float exp_row(float* row, std::int64_t count, float shift) {
  return HWY_DYNAMIC_DISPATCH(ExpRowF32)(row, count, shift);
}
double exp_row(double* row, std::int64_t count, double shift) {
  return HWY_DYNAMIC_DISPATCH(ExpRowF64)(row, count, shift);
}
float weighted_sum(const float* p, const float* x, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(WeightedSumF32)(p, x, count);
}
double weighted_sum(const double* p, const double* x, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(WeightedSumF64)(p, x, count);
}
void softmax_gradient(float* dp, const float* p, std::int64_t count, float delta, float scale) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradientF32)(dp, p, count, delta, scale);
}
void softmax_gradient(double* dp, const double* p, std::int64_t count, double delta, double scale) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradientF64)(dp, p, count, delta, scale);
}
void widen_row(float* target, const bf16* source, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(WidenBF16)(target, source, count);
}
void widen_row(float* target, const f16* source, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(WidenF16)(target, source, count);
}

}  // namespace sp::tile
#endif  // HWY_ONCE
