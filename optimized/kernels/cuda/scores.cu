// Score rows of Ring Self-Attention: products with keys and values, the softmax of complete rows.
//
// Products   product.cuh, in f32 whatever the storage is.
// Softmax    A row is read twice and written once: first its maximum and its sum of exponentials
//            together, then the probabilities. The second reading finds rows up to a few 100,000
//            keys in L2, so the cost is 8 bytes of memory per element, for any length.
// Hidden     Entries that the mask hides are never looked at: they need not be defined.
// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/mask.cuh"
#include "optimized/kernels/cuda/product.cuh"

namespace sp::SP_GPU {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kRowThreads = 256;          // of a block
constexpr std::int64_t kShortRow = 1024;  // elements; up to here a warp takes a row alone
constexpr int kUnroll = 4;                // loads in flight per thread

// All score rows [n, B, H, m] of a tensor, one after the other.
struct ScoreRows {
  View<float> scores;
  int B, H;
  std::int64_t rows, count;

  __device__ std::int64_t i(std::int64_t row) const { return row / (B * H); }
  __device__ std::int64_t b(std::int64_t row) const { return row / H % B; }
  __device__ Global<float> begin(std::int64_t row) const {
    return scores.data + scores.offset(i(row), b(row), row % H);
  }
};

ScoreRows rows_of(const Tensor& tensor) {
  SP_CHECK(tensor.dtype() == DType::kF32, "score rows hold f32");
  SP_CHECK(tensor.stride(3) == 1 || tensor.extent(3) <= 1, "the last axis is contiguous");
  return {view<float>(tensor), static_cast<int>(tensor.extent(1)),
          static_cast<int>(tensor.extent(2)),
          tensor.extent(0) * tensor.extent(1) * tensor.extent(2), tensor.extent(3)};
}

// The mask of whole rows; without positions it hides nothing.
struct RowMask {
  Mask mask;
  Global<const int> q_positions, k_positions;
};

// What one row sees.
class Sight {
 public:
  __device__ Sight(const RowMask& row_mask, std::int64_t i, std::int64_t b)
      : row_mask_(row_mask), b_(static_cast<int>(b)) {
    if (!row_mask.q_positions) return;
    query_ = row_mask.q_positions.load(i);
    segment_ = row_mask.mask.segment(b_, query_);
  }
  __device__ bool operator()(std::int64_t j) const {
    if (!row_mask_.k_positions) return true;
    const int key = row_mask_.k_positions.load(j);
    return row_mask_.mask.band_sees(query_, key) && row_mask_.mask.segment(b_, key) == segment_;
  }

 private:
  const RowMask& row_mask_;
  int b_, query_ = 0, segment_ = 0;
};

// A running maximum and the sum of exp(score - maximum); (-inf, 0) is the identity of merge.
struct Softmax {
  float largest = -kInfinity, sum = 0;

  __device__ void add(float score) {
    if (score == -kInfinity) return;
    if (score > largest) {
      sum *= expf(largest - score);
      largest = score;
    }
    sum += expf(score - largest);
  }
  __device__ Softmax merged(Softmax other) const {
    const float both = fmaxf(largest, other.largest);
    if (both == -kInfinity) return {};
    return {both, sum * expf(largest - both) + other.sum * expf(other.largest - both)};
  }
};

// f(j, x) for every element of a row that belongs to this thread; loads run ahead of f.
template <int kThreads, class Load, class F>
__device__ void for_each(std::int64_t count, Load load, F f) {
  for (std::int64_t base = thread_id() % kThreads; base < count; base += kThreads * kUnroll) {
    decltype(load(base)) x[kUnroll];
#pragma unroll
    for (int n = 0; n < kUnroll; ++n) {
      if (base + n * kThreads < count) x[n] = load(base + n * kThreads);
    }
#pragma unroll
    for (int n = 0; n < kUnroll; ++n) {
      if (base + n * kThreads < count) f(base + n * kThreads, x[n]);
    }
  }
}

// merge(x, y) over the kThreads threads of a row, in one order: every thread gets it. Threads of
// a block have rows alike or none.
template <int kThreads, class X, class Exchange, class Merge>
__device__ X reduce(X x, Exchange exchange, Merge merge) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) x = merge(x, exchange(x, mask));
  if constexpr (kThreads > kWarp) {
    const Shared<X> warps = shared_memory<X>(0);
    if (lane_id() == 0) warps.store(warp_id(), x);
    block_barrier();
    x = warps.load(0);
    for (int warp = 1; warp < kThreads / kWarp; ++warp) x = merge(x, warps.load(warp));
  }
  return x;
}

template <int kThreads>
__device__ std::int64_t my_row() {
  return static_cast<std::int64_t>(blockIdx.x) * (kRowThreads / kThreads) + thread_id() / kThreads;
}

template <int kThreads>
__global__ void __launch_bounds__(kRowThreads, 4)
    softmax(ScoreRows rows, View<float> lse, RowMask mask) {
  const std::int64_t row = my_row<kThreads>();
  if (row >= rows.rows) return;
  const std::int64_t i = rows.i(row), b = rows.b(row);
  const Global<float> scores = rows.begin(row);
  const Sight sees(mask, i, b);
  const auto load = [&](std::int64_t j) { return sees(j) ? scores.load(j) : -kInfinity; };
  Softmax total;
  for_each<kThreads>(rows.count, load, [&](std::int64_t, float score) { total.add(score); });
  total = reduce<kThreads>(
      total,
      [](Softmax x, int lanes) {
        return Softmax{shuffle_xor(x.largest, lanes), shuffle_xor(x.sum, lanes)};
      },
      [](Softmax x, Softmax y) { return x.merged(y); });
  if (thread_id() % kThreads == 0) {
    const bool empty = total.largest == -kInfinity;
    lse.data.store(lse.offset(i, b, row % rows.H),
                   empty ? -kInfinity : total.largest + logf(total.sum));
  }
  for_each<kThreads>(rows.count, load, [&](std::int64_t j, float score) {
    const bool hidden = score == -kInfinity;
    scores.store(j, hidden ? 0.0f : expf(score - total.largest) / total.sum);
  });
}

struct Weighted {
  float p, dp;
};

template <int kThreads>
__global__ void __launch_bounds__(kRowThreads, 4)
    softmax_backward(ScoreRows d_rows, ScoreRows rows, float scale) {
  const std::int64_t row = my_row<kThreads>();
  if (row >= rows.rows) return;
  const Global<float> d_probabilities = d_rows.begin(row);
  const Global<const float> probabilities = rows.begin(row);
  const auto load = [&](std::int64_t j) {
    const float p = probabilities.load(j);
    return Weighted{p, p == 0 ? 0 : d_probabilities.load(j)};
  };
  float delta = 0;
  for_each<kThreads>(rows.count, load, [&](std::int64_t, Weighted x) { delta += x.p * x.dp; });
  delta = reduce<kThreads>(
      delta, [](float x, int lanes) { return shuffle_xor(x, lanes); },
      [](float x, float y) { return x + y; });
  for_each<kThreads>(rows.count, load, [&](std::int64_t j, Weighted x) {
    d_probabilities.store(j, x.p == 0 ? 0.0f : scale * x.p * (x.dp - delta));
  });
}

Launch row_launch(std::int64_t rows, int threads_per_row) {
  const std::int64_t per_block = kRowThreads / threads_per_row;
  const auto blocks = static_cast<unsigned>((rows + per_block - 1) / per_block);
  return {dim3(blocks, 1, 1), kRowThreads, kRowThreads / kWarp * static_cast<int>(sizeof(Softmax))};
}

// f.template operator()<T, X>() with the type T of the storage operand and X of the other one,
// which is of T or f32.
template <class F>
void visit_pair(DType storage, DType other, F&& f) {
  visit_storage(storage, [&]<class T>() {
    if (other == storage) return f.template operator()<T, T>();
    SP_CHECK(other == DType::kF32, "operands of a product have one type, or one of them f32");
    f.template operator()<T, float>();
  });
}

product::Extents extents_of(const Tensor& queries, std::int64_t key_heads, std::int64_t rows,
                            std::int64_t columns, std::int64_t depth) {
  SP_CHECK(key_heads > 0 && queries.extent(2) % key_heads == 0,
           "query heads are no multiple of key heads");
  product::Extents extents{rows, columns, depth};
  extents.axes[0] = static_cast<int>(queries.extent(1));
  extents.axes[1] = static_cast<int>(key_heads);
  extents.axes[2] = static_cast<int>(queries.extent(2) / key_heads);
  return extents;
}

}  // namespace

void CudaKernels::do_scores(const Tensor& scores, const Tensor& a, const Tensor& b, double scale) {
  const auto extents = extents_of(a, b.extent(2), a.extent(0), b.extent(0), a.extent(3));
  const std::int64_t group = extents.axes[2];
  product::Result rows = product::result(scores, {scores, group});
  rows.factor = static_cast<float>(scale);
  rows.accumulate = false;
  visit_pair(a.dtype(), b.dtype(), [&]<class A, class B>() {
    product::run(gpu_, "scores", product::operand<A>(a, {a, group}), product::operand<B>(b, {b, 0}),
                 rows, extents);
  });
}

void CudaKernels::do_scores_softmax(const Tensor& scores, const Tensor& lse, const Tokens& q_tokens,
                                    const Tokens& k_tokens, const MaskTerms* mask) {
  const ScoreRows rows = rows_of(scores);
  SP_CHECK(lse.dtype() == DType::kF32, "the log-sum-exp of score rows is f32");
  RowMask terms{Mask(mask == nullptr ? MaskTerms{} : *mask), {}, {}};
  if (mask != nullptr && (mask->band.causal || mask->band.window > 0 || mask->segments.defined())) {
    terms.q_positions = tables_.of(q_tokens).positions;
    terms.k_positions = tables_.of(k_tokens).positions;
  }
  const bool is_short = rows.count <= kShortRow;
  launch(gpu_, "scores_softmax", is_short ? &softmax<kWarp> : &softmax<kRowThreads>,
         row_launch(rows.rows, is_short ? kWarp : kRowThreads), rows, view<float>(lse), terms);
}

void CudaKernels::do_scores_softmax_backward(const Tensor& d_probabilities,
                                             const Tensor& probabilities, double scale) {
  const ScoreRows rows = rows_of(probabilities), d_rows = rows_of(d_probabilities);
  const bool is_short = rows.count <= kShortRow;
  launch(gpu_, "scores_softmax_backward",
         is_short ? &softmax_backward<kWarp> : &softmax_backward<kRowThreads>,
         row_launch(rows.rows, is_short ? kWarp : kRowThreads), d_rows, rows,
         static_cast<float>(scale));
}

// out [n, E] += s [n, m] x [m, E] for every query head
void CudaKernels::do_scores_apply(const Tensor& out, const Tensor& s, const Tensor& x) {
  const auto extents = extents_of(s, x.extent(2), s.extent(0), x.extent(3), x.extent(0));
  const std::int64_t group = extents.axes[2];
  SP_CHECK(s.dtype() == DType::kF32, "score rows hold f32");
  visit_storage(x.dtype(), [&]<class T>() {
    product::run(gpu_, "scores_apply", product::operand<float>(s, {s, group}),
                 product::operand<T, true>(x, {x, 0}), product::result(out, {out, group}), extents);
  });
}

// out [m, E] += sum over the query heads of a group of sT [m, n] x [n, E]
void CudaKernels::do_scores_apply_transposed(const Tensor& out, const Tensor& s, const Tensor& x) {
  product::Extents extents = extents_of(s, out.extent(2), out.extent(0), x.extent(3), x.extent(0));
  const std::int64_t group = extents.axes[2];
  extents.summed = extents.axes[2];
  SP_CHECK(s.dtype() == DType::kF32, "score rows hold f32");
  visit_storage(x.dtype(), [&]<class T>() {
    product::run(gpu_, "scores_apply_transposed", product::operand<float, true>(s, {s, group}),
                 product::operand<T, true>(x, {x, group}), product::result(out, {out, 0}), extents);
  });
}

}  // namespace sp::SP_GPU
