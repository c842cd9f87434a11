// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/rounded_steps.hpp"

// Machines without AVX2 get the portable target; vectors without a fixed size cannot form arrays.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "harness/compare/rounded_steps.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h, as Highway demands.
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sp::rounded_steps::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::CappedTag<double, kLanes>;
using Vector = hn::Vec<Lanes>;
constexpr std::int64_t kStep = static_cast<std::int64_t>(hn::MaxLanes(Lanes()));

// Three arrays of kVectors vectors stay in registers.
template <int kVectors>
HWY_INLINE void without_decay(const Row& row, std::int64_t e) {
  const Lanes d;
  Vector s[kVectors], r[kVectors], t0[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    s[v] = hn::LoadU(d, row.s + e + v * kStep);
    r[v] = hn::LoadU(d, row.r + e + v * kStep);
    t0[v] = hn::LoadU(d, row.t0 + e + v * kStep);
  }
  for (std::int64_t n = 0; n < row.count; ++n) {
    const Vector x = hn::Set(d, row.x[n * row.stride]), adds = hn::Set(d, row.adds[n]);
    for (int v = 0; v < kVectors; ++v) {
      const Vector term = hn::Mul(x, hn::LoadU(d, row.y + n * row.size + e + v * kStep));
      s[v] = hn::Add(s[v], term);
      r[v] = hn::MulAdd(hn::Mul(adds, s[v]), s[v], r[v]);
      t0[v] = hn::MulAdd(term, term, t0[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    hn::StoreU(s[v], d, row.s + e + v * kStep);
    hn::StoreU(r[v], d, row.r + e + v * kStep);
    hn::StoreU(t0[v], d, row.t0 + e + v * kStep);
  }
}

HWY_INLINE void with_decay(const Row& row, std::int64_t e) {
  const Lanes d;
  Vector s = hn::LoadU(d, row.s + e), r = hn::LoadU(d, row.r + e), t0 = hn::LoadU(d, row.t0 + e),
         columns = hn::LoadU(d, row.columns + e), rows = hn::LoadU(d, row.rows + e),
         t1 = hn::LoadU(d, row.t1 + e), t2 = hn::LoadU(d, row.t2 + e), l = hn::LoadU(d, row.l + e);
  for (std::int64_t n = 0; n < row.count; ++n) {
    const double decay = row.decay[n * row.stride], exponent = row.exponent[n * row.stride];
    if (exponent > 0) {
      const Vector a = hn::Set(d, decay), a2 = hn::Set(d, decay * decay), g = hn::Set(d, exponent);
      const Vector of_t0 = hn::Mul(g, t0);
      l = hn::Mul(a, hn::MulAdd(g, s, l));
      t2 = hn::Mul(a2, hn::MulAdd(g, hn::Add(hn::Add(t1, t1), of_t0), t2));
      t1 = hn::Mul(a2, hn::Add(t1, of_t0));
      t0 = hn::Mul(a2, t0);
      r = hn::Mul(a2, hn::MulAdd(hn::Add(s, s), s, r));  // the factor and the product
      s = hn::Mul(a, s);
      columns = hn::Mul(a, columns);
      rows = hn::Mul(a, rows);
    }
    const Vector term =
        hn::Mul(hn::Set(d, row.x[n * row.stride]), hn::LoadU(d, row.y + n * row.size + e));
    s = hn::Add(s, term);
    r = hn::MulAdd(hn::Mul(hn::Set(d, row.adds[n]), s), s, r);
    t0 = hn::MulAdd(term, term, t0);
  }
  hn::StoreU(s, d, row.s + e);
  hn::StoreU(r, d, row.r + e);
  hn::StoreU(t0, d, row.t0 + e);
  hn::StoreU(columns, d, row.columns + e);
  hn::StoreU(rows, d, row.rows + e);
  hn::StoreU(t1, d, row.t1 + e);
  hn::StoreU(t2, d, row.t2 + e);
  hn::StoreU(l, d, row.l + e);
}

void Apply(const Row& row) {
  std::int64_t e = 0;
  if (row.l != nullptr) {
    for (; e < row.size; e += kStep) with_decay(row, e);
    return;
  }
  for (; e + 4 * kStep <= row.size; e += 4 * kStep) without_decay<4>(row, e);
  for (; e < row.size; e += kStep) without_decay<1>(row, e);
}

}  // namespace sp::rounded_steps::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sp::rounded_steps {

HWY_EXPORT(Apply);

void apply(const Row& row) { HWY_DYNAMIC_DISPATCH(Apply)(row); }

}  // namespace sp::rounded_steps
#endif  // HWY_ONCE
