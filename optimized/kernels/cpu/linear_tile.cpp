// The SIMD primitives of linear attention, compiled once per instruction set by Highway.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/linear_tile.hpp"

#include <algorithm>

// The same targets as in tile.cpp.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "optimized/kernels/cpu/linear_tile.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, as Highway demands.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sp::tile::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Lanes = hn::CappedTag<T, static_cast<std::size_t>(kGatedRows)>;

template <class T>
constexpr std::int64_t kLanes = static_cast<std::int64_t>(hn::MaxLanes(Lanes<T>()));

// Rows [row, rows) of the source, from column `column` on, one by one.
template <class T>
void transpose_rest(const Transposition<T>& p, std::int64_t row, std::int64_t rows,
                    std::int64_t column) {
  for (std::int64_t c = column; c < p.columns; ++c) {
    for (std::int64_t r = row; r < rows; ++r) {
      p.target[c * p.target_stride + r] = p.source[r * p.source_stride + c];
    }
  }
}

// 4 x 4 elements of f32 go through registers.
void transpose_any(const Transposition<float>& p) {
  std::int64_t row = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  for (; row + 4 <= p.rows; row += 4) {
    const float* source = p.source + row * p.source_stride;
    float* target = p.target + row;
    std::int64_t c = 0;
    for (; c + 4 <= p.columns; c += 4) {
      const auto a = hn::LoadU(d, source + c);
      const auto b = hn::LoadU(d, source + p.source_stride + c);
      const auto e = hn::LoadU(d, source + 2 * p.source_stride + c);
      const auto f = hn::LoadU(d, source + 3 * p.source_stride + c);
      const auto low_ae = hn::InterleaveLower(d, a, e), high_ae = hn::InterleaveUpper(d, a, e);
      const auto low_bf = hn::InterleaveLower(d, b, f), high_bf = hn::InterleaveUpper(d, b, f);
      float* to = target + c * p.target_stride;
      hn::StoreU(hn::InterleaveLower(d, low_ae, low_bf), d, to);
      hn::StoreU(hn::InterleaveUpper(d, low_ae, low_bf), d, to + p.target_stride);
      hn::StoreU(hn::InterleaveLower(d, high_ae, high_bf), d, to + 2 * p.target_stride);
      hn::StoreU(hn::InterleaveUpper(d, high_ae, high_bf), d, to + 3 * p.target_stride);
    }
    transpose_rest(p, row, row + 4, c);
  }
#endif
  transpose_rest(p, row, p.rows, 0);
}

void transpose_any(const Transposition<double>& p) {
  constexpr std::int64_t kBlock = 8;  // one cache line of the source
  for (std::int64_t row = 0; row < p.rows; row += kBlock) {
    transpose_rest(p, row, std::min(row + kBlock, p.rows), 0);
  }
}

template <class T>
void product_row_any(T* target, const T* x, const T* y, T factor, std::int64_t count) {
  const Lanes<T> d;
  const auto by = hn::Set(d, factor);
  for (std::int64_t i = 0; i < count; i += kLanes<T>) {
    const auto left = hn::Mul(by, hn::LoadU(d, x + i));
    hn::StoreU(hn::Mul(left, hn::LoadU(d, y + i)), d, target + i);
  }
}

template <class T>
void add_product_row_any(T* target, const T* x, const T* y, T factor, std::int64_t count) {
  const Lanes<T> d;
  const auto by = hn::Set(d, factor);
  for (std::int64_t i = 0; i < count; i += kLanes<T>) {
    const auto left = hn::Mul(by, hn::LoadU(d, x + i));
    hn::StoreU(hn::MulAdd(left, hn::LoadU(d, y + i), hn::LoadU(d, target + i)), d, target + i);
  }
}

template <class T>
void shrink_row_any(T* row, std::int64_t count, T share) {
  const Lanes<T> d;
  const auto by = hn::Set(d, share);
  for (std::int64_t i = 0; i < count; i += kLanes<T>) {
    const auto x = hn::LoadU(d, row + i);
    hn::StoreU(hn::NegMulAdd(x, by, x), d, row + i);
  }
}

// One vector of keys at a time; all its scores are in registers while the channels pass.
template <bool kFull, class T>
HWY_INLINE void gated_score_vector(const GatedScores<T>& p, std::int64_t first) {
  const Lanes<T> d;
  const auto one = hn::Set(d, T{1});
  const auto lane = hn::Add(hn::Iota(d, T{0}), hn::Set(d, static_cast<T>(first)));
  const std::int64_t rows = kFull ? kGatedRows : p.rows;
  hn::Vec<Lanes<T>> sum[kGatedRows];
  for (std::int64_t j = 0; j < kGatedRows; ++j) sum[j] = hn::Zero(d);
  for (std::int64_t c = 0; c < p.depth; ++c) {
    auto key = hn::LoadU(d, p.k_transposed + c * p.k_stride + first);
    for (std::int64_t j = 0; j < rows; ++j) {
      const auto earlier = hn::Lt(lane, hn::Set(d, static_cast<T>(j)));
      const auto gate = hn::Set(d, p.gates[j * p.gate_stride + c]);
      key = hn::Mul(key, hn::IfThenElse(earlier, gate, one));
      sum[j] = hn::MulAdd(hn::Set(d, p.q[j * p.q_stride + c]), key, sum[j]);
    }
  }
  for (std::int64_t j = 0; j < rows; ++j) {
    const auto visible = hn::Le(lane, hn::Set(d, static_cast<T>(j)));
    hn::StoreU(hn::IfThenElseZero(visible, sum[j]), d, p.scores + j * p.score_stride + first);
  }
}

template <class T>
void gated_scores_any(const GatedScores<T>& p) {
  for (std::int64_t first = 0; first < kGatedRows; first += kLanes<T>) {
    if (p.rows == kGatedRows) {
      gated_score_vector<true>(p, first);
    } else {
      gated_score_vector<false>(p, first);
    }
  }
}

// One vector of channels at a time; all tokens of the block are in registers.
template <bool kFull, class T>
HWY_INLINE void gated_sum_vector(const GatedSums<T>& p, std::int64_t channel) {
  const Lanes<T> d;
  const std::int64_t rows = kFull ? kGatedRows : p.rows;
  hn::Vec<Lanes<T>> decayed[kGatedRows];
  for (std::int64_t j = 0; j < rows; ++j) {
    const T* weights = p.weights + j * p.weight_row_stride;
    decayed[j] = hn::LoadU(d, p.x + j * p.x_stride + channel);
    auto sum = hn::Mul(hn::Set(d, weights[j * p.weight_column_stride]), decayed[j]);
    if (j > 0) {
      const auto gate = hn::LoadU(d, p.gates + j * p.gate_stride + channel);
      for (std::int64_t i = 0; i < j; ++i) {
        decayed[i] = hn::Mul(decayed[i], gate);
        sum = hn::MulAdd(hn::Set(d, weights[i * p.weight_column_stride]), decayed[i], sum);
      }
    }
    hn::StoreU(sum, d, p.out + j * p.out_stride + channel);
  }
}

template <class T>
void gated_sums_any(const GatedSums<T>& p) {
  for (std::int64_t channel = 0; channel < p.depth; channel += kLanes<T>) {
    if (p.rows == kGatedRows) {
      gated_sum_vector<true>(p, channel);
    } else {
      gated_sum_vector<false>(p, channel);
    }
  }
}

// One name per type: a dispatch table holds addresses of plain functions.
void TransposeF32(const Transposition<float>& p) { transpose_any(p); }
void TransposeF64(const Transposition<double>& p) { transpose_any(p); }
void ProductRowF32(float* t, const float* x, const float* y, float by, std::int64_t n) {
  product_row_any(t, x, y, by, n);
}
void ProductRowF64(double* t, const double* x, const double* y, double by, std::int64_t n) {
  product_row_any(t, x, y, by, n);
}
void AddProductRowF32(float* t, const float* x, const float* y, float by, std::int64_t n) {
  add_product_row_any(t, x, y, by, n);
}
void AddProductRowF64(double* t, const double* x, const double* y, double by, std::int64_t n) {
  add_product_row_any(t, x, y, by, n);
}
void ShrinkRowF32(float* row, std::int64_t n, float share) { shrink_row_any(row, n, share); }
void ShrinkRowF64(double* row, std::int64_t n, double share) { shrink_row_any(row, n, share); }
void GatedScoresF32(const GatedScores<float>& p) { gated_scores_any(p); }
void GatedScoresF64(const GatedScores<double>& p) { gated_scores_any(p); }
void GatedSumsF32(const GatedSums<float>& p) { gated_sums_any(p); }
void GatedSumsF64(const GatedSums<double>& p) { gated_sums_any(p); }

}  // namespace sp::tile::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sp::tile {

HWY_EXPORT(TransposeF32);
HWY_EXPORT(TransposeF64);
HWY_EXPORT(ProductRowF32);
HWY_EXPORT(ProductRowF64);
HWY_EXPORT(AddProductRowF32);
HWY_EXPORT(AddProductRowF64);
HWY_EXPORT(ShrinkRowF32);
HWY_EXPORT(ShrinkRowF64);
HWY_EXPORT(GatedScoresF32);
HWY_EXPORT(GatedScoresF64);
HWY_EXPORT(GatedSumsF32);
HWY_EXPORT(GatedSumsF64);

// Without columns the addresses may be null.
void transpose(const Transposition<float>& p) {
  if (p.columns > 0) HWY_DYNAMIC_DISPATCH(TransposeF32)(p);
}
void transpose(const Transposition<double>& p) {
  if (p.columns > 0) HWY_DYNAMIC_DISPATCH(TransposeF64)(p);
}
void product_row(float* target, const float* x, const float* y, float factor, std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(ProductRowF32)(target, x, y, factor, count);
}
void product_row(double* target, const double* x, const double* y, double factor,
                 std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(ProductRowF64)(target, x, y, factor, count);
}
void add_product_row(float* target, const float* x, const float* y, float factor,
                     std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(AddProductRowF32)(target, x, y, factor, count);
}
void add_product_row(double* target, const double* x, const double* y, double factor,
                     std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(AddProductRowF64)(target, x, y, factor, count);
}
void shrink_row(float* row, std::int64_t count, float share) {
  HWY_DYNAMIC_DISPATCH(ShrinkRowF32)(row, count, share);
}
void shrink_row(double* row, std::int64_t count, double share) {
  HWY_DYNAMIC_DISPATCH(ShrinkRowF64)(row, count, share);
}
void gated_scores(const GatedScores<float>& block) { HWY_DYNAMIC_DISPATCH(GatedScoresF32)(block); }
void gated_scores(const GatedScores<double>& block) { HWY_DYNAMIC_DISPATCH(GatedScoresF64)(block); }
void gated_sums(const GatedSums<float>& block) { HWY_DYNAMIC_DISPATCH(GatedSumsF32)(block); }
void gated_sums(const GatedSums<double>& block) { HWY_DYNAMIC_DISPATCH(GatedSumsF64)(block); }

}  // namespace sp::tile
#endif  // HWY_ONCE
