// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/double_tiles.hpp"

#include <cmath>
#include <limits>

// Machines without AVX2 get the portable target; vectors without a fixed size cannot form arrays.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "harness/compare/double_tiles.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, as Highway demands.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sp::double_tiles::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::CappedTag<double, kLanes>;
using Vector = hn::Vec<Lanes>;
constexpr std::int64_t kStep = static_cast<std::int64_t>(hn::MaxLanes(Lanes()));

// kRows x kVectors sums stay in registers: 20 + 4 + 1 of 32 with AVX-512, 10 + 2 + 1 of 16 elsewhere.
constexpr int kMostRows = 5;
constexpr int kMostVectors = HWY_TARGET == HWY_AVX3 ? 4 : 2;

template <int kRows, int kVectors>
HWY_INLINE void block(const Product& p, std::int64_t row, std::int64_t column) {
  const Lanes d;
  Vector sum[kRows][kVectors];
  double* c = p.c + row * p.c_stride + column;
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::LoadU(d, c + i * p.c_stride + v * kStep);
  for (std::int64_t k = 0; k < p.depth; ++k) {
    const double* a = p.a + row * p.a_row_stride + k * p.a_column_stride;
    Vector right[kVectors];
    for (int v = 0; v < kVectors; ++v)
      right[v] = hn::LoadU(d, p.b + k * p.b_stride + column + v * kStep);
    for (int i = 0; i < kRows; ++i) {
      const Vector left = hn::Set(d, a[i * p.a_row_stride]);
      for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(left, right[v], sum[i][v]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[i][v], d, c + i * p.c_stride + v * kStep);
}

template <int kVectors>
std::int64_t columns_from(const Product& p, std::int64_t column) {
  for (; column + kVectors * kStep <= p.columns; column += kVectors * kStep) {
    std::int64_t row = 0;
    for (; row + kMostRows <= p.rows; row += kMostRows) block<kMostRows, kVectors>(p, row, column);
    for (; row < p.rows; ++row) block<1, kVectors>(p, row, column);
  }
  return column;
}

void MultiplyAdd(const Product& p) {
  std::int64_t column = columns_from<kMostVectors>(p, 0);
  if constexpr (kMostVectors > 2) column = columns_from<2>(p, column);
  columns_from<1>(p, column);
}

// The clamp keeps the conversion to an exponent in range; exp(-2000) is 0. NaN stays.
HWY_INLINE Vector exp_of(Vector x) {
  const Lanes d;
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, hn::Max(x, hn::Set(d, -2000.0))));
}

double Largest(const double* x, std::int64_t count) {
  const Lanes d;
  Vector most = hn::Set(d, -std::numeric_limits<double>::infinity());
  for (std::int64_t i = 0; i < count; i += kStep) most = hn::Max(most, hn::LoadU(d, x + i));
  return hn::GetLane(hn::MaxOfLanes(d, most));
}

double SumOfExp(const double* x, double shift, std::int64_t count) {
  const Lanes d;
  Vector sum = hn::Zero(d);
  for (std::int64_t i = 0; i < count; i += kStep)
    sum = hn::Add(sum, exp_of(hn::Sub(hn::LoadU(d, x + i), hn::Set(d, shift))));
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

void AddStep(double* low, double* high, double* variance, const double* sum, double rounding2,
             std::int64_t count) {
  const Lanes d;
  for (std::int64_t i = 0; i < count; i += kStep) {
    const Vector value = hn::LoadU(d, sum + i);
    hn::StoreU(hn::Min(value, hn::LoadU(d, low + i)), d, low + i);
    hn::StoreU(hn::Max(value, hn::LoadU(d, high + i)), d, high + i);
    const Vector squares = hn::Mul(value, value);
    hn::StoreU(hn::MulAdd(squares, hn::Set(d, rounding2), hn::LoadU(d, variance + i)), d,
               variance + i);
  }
}

HWY_INLINE Vector squared(Vector x) { return hn::Mul(x, x); }

struct Pair {
  Vector p, p_variance;      // without the query's own errors
  Vector exponent_variance;  // of score - lse, and of the key
};

HWY_INLINE Pair pair_at(const QueryTerms& query, const KeyTerms& keys, const double* scores,
                        std::int64_t j) {
  const Lanes d;
  const Vector score = hn::LoadU(d, scores + j);
  const Vector p = exp_of(hn::Sub(score, hn::Set(d, query.lse)));
  const Vector seen = hn::Max(score, hn::Set(d, -1e300));  // -inf times 0 is NaN
  const Vector product =
      hn::Mul(hn::Set(d, std::fabs(query.scale) * query.q_norm), hn::LoadU(d, keys.k_norm + j));
  const Vector roundings = hn::Add(hn::MulAdd(hn::Set(d, query.score_walk), hn::Abs(seen), product),
                                   hn::Set(d, std::fabs(query.lse) + 2));
  const Vector of_key =
      squared(hn::Mul(hn::Set(d, query.scale * query.q_norm), hn::LoadU(d, keys.k_error + j)));
  const Vector own = hn::Add(squared(roundings), hn::Set(d, query.steps / 6));
  const Vector variance = hn::MulAdd(own, hn::Set(d, query.w * query.w), of_key);
  const Vector zero = hn::Zero(d);
  const auto hidden = hn::Eq(p, zero);
  return {p, hn::IfThenElse(hidden, zero, hn::Mul(squared(p), variance)),
          hn::IfThenElse(hidden, zero, variance)};
}

// What rounding x to storage adds to a variance.
HWY_INLINE Vector rounding_of(const QueryTerms& query, Vector p, Vector x) {
  const Lanes d;
  const Vector size = hn::Max(hn::Abs(x), hn::Set(d, query.smallest));
  return hn::IfThenZeroElse(hn::Eq(p, hn::Zero(d)),
                            squared(hn::Mul(size, hn::Set(d, query.operand))));
}

ForwardSums ForwardPairs(const QueryTerms& query, const KeyTerms& keys, const double* scores,
                         double* p, double* p_variance, std::int64_t count) {
  const Lanes d;
  Vector sum = hn::Zero(d), of_values = hn::Zero(d);
  for (std::int64_t j = 0; j < count; j += kStep) {
    const Pair pair = pair_at(query, keys, scores, j);
    const Vector variance = hn::Add(pair.p_variance, rounding_of(query, pair.p, pair.p));
    hn::StoreU(pair.p, d, p + j);
    hn::StoreU(variance, d, p_variance + j);
    sum = hn::Add(sum, pair.p_variance);  // of p before it is rounded, as it enters lse
    of_values = hn::Add(of_values, squared(hn::Mul(pair.p, hn::LoadU(d, keys.v_error + j))));
  }
  return {hn::GetLane(hn::SumOfLanes(d, sum)), hn::GetLane(hn::SumOfLanes(d, of_values))};
}

double BackwardPairs(const QueryTerms& query, const KeyTerms& keys, const double* scores,
                     const double* d_p, double* p, double* p_variance, double* d_score,
                     double* d_score_variance, std::int64_t count) {
  const Lanes d;
  const Vector w2 = hn::Set(d, query.w * query.w);
  const Vector lse2 = hn::Set(d, query.lse_error * query.lse_error);
  const Vector delta2 = hn::Set(d, query.delta_error * query.delta_error);
  Vector of_keys = hn::Zero(d);
  for (std::int64_t j = 0; j < count; j += kStep) {
    const Pair pair = pair_at(query, keys, scores, j);
    const Vector p2 = squared(pair.p);
    const Vector seen = hn::IfThenZeroElse(hn::Eq(pair.p, hn::Zero(d)), hn::LoadU(d, d_p + j));
    const Vector slope = hn::Sub(seen, hn::Set(d, query.delta));
    // Errors of d_p: its roundings, and what moved the value.
    const Vector d_p2 = hn::Mul(hn::Set(d, query.d_out_norm * query.d_out_norm),
                                hn::MulAdd(squared(hn::LoadU(d, keys.v_norm + j)), w2,
                                           squared(hn::LoadU(d, keys.v_error + j))));
    const Vector relative = hn::Add(pair.exponent_variance, lse2);
    const Vector change = hn::Mul(pair.p, slope);
    const Vector scale = hn::Set(d, query.scale);
    const Vector variance =
        hn::Add(hn::Mul(p2, hn::Add(d_p2, delta2)), hn::Mul(squared(change), relative));
    hn::StoreU(pair.p, d, p + j);
    hn::StoreU(hn::Add(hn::MulAdd(p2, lse2, pair.p_variance), rounding_of(query, pair.p, pair.p)),
               d, p_variance + j);
    hn::StoreU(hn::Mul(change, scale), d, d_score + j);
    of_keys =
        hn::Add(of_keys, squared(hn::Mul(hn::Mul(change, scale), hn::LoadU(d, keys.k_error + j))));
    hn::StoreU(hn::Mul(hn::Add(variance, rounding_of(query, pair.p, change)), squared(scale)), d,
               d_score_variance + j);
  }
  return hn::GetLane(hn::SumOfLanes(d, of_keys));
}

}  // namespace sp::double_tiles::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sp::double_tiles {

HWY_EXPORT(MultiplyAdd);
HWY_EXPORT(Largest);
HWY_EXPORT(SumOfExp);
HWY_EXPORT(AddStep);
HWY_EXPORT(ForwardPairs);
HWY_EXPORT(BackwardPairs);

void multiply_add(const Product& product) { HWY_DYNAMIC_DISPATCH(MultiplyAdd)(product); }
double largest(const double* x, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(Largest)(x, count);
}
double sum_of_exp(const double* x, double shift, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(SumOfExp)(x, shift, count);
}
void add_step(double* low, double* high, double* variance, const double* sum, double rounding2,
              std::int64_t count) {
  HWY_DYNAMIC_DISPATCH(AddStep)(low, high, variance, sum, rounding2, count);
}
ForwardSums forward_pairs(const QueryTerms& query, const KeyTerms& keys, const double* scores,
                          double* p, double* p_variance, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(ForwardPairs)(query, keys, scores, p, p_variance, count);
}
double backward_pairs(const QueryTerms& query, const KeyTerms& keys, const double* scores,
                      const double* d_p, double* p, double* p_variance, double* d_score,
                      double* d_score_variance, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(BackwardPairs)(query, keys, scores, d_p, p, p_variance, d_score,
                                             d_score_variance, count);
}

}  // namespace sp::double_tiles
#endif  // HWY_ONCE
