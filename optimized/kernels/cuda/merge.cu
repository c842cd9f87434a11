// Merge of partial results, and the delta of attention's backward pass: rows of one head, each done
// by 8, 16 or 32 lanes of a warp. Both are bound by memory: 4 elements per lane and access.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/vectors.cuh"

namespace sp::SP_GPU {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

// The rows (i, b, h) of tensors [n, B, H, columns], and how warps share them.
struct RowSpace {
  int sequences, heads, columns;
  int lanes;  // per row: a power of two
  std::int64_t rows;

  explicit RowSpace(const Tensor& tensor)
      : sequences(static_cast<int>(tensor.extent(1))),
        heads(static_cast<int>(tensor.extent(2))),
        columns(static_cast<int>(tensor.extent(3))),
        lanes(columns <= 32   ? 8
              : columns <= 64 ? 16
                              : 32),
        rows(tensor.extent(0) * tensor.extent(1) * tensor.extent(2)) {}

  template <class T>
  __device__ std::int64_t offset(const View<T>& view, std::int64_t row) const {
    const std::int64_t token = row / (sequences * heads);
    const auto rest = static_cast<int>(row - token * (sequences * heads));
    return view.offset(token, rest / heads, rest % heads);
  }
};

// Whether all rows of a tensor can be accessed four elements at a time.
template <class T>
bool in_quads(const Tensor& tensor) {
  SP_CHECK(tensor.extent(3) <= 1 || tensor.stride(3) == 1, "elements of a row must be neighbours");
  bool result = true;
  for (int axis = 0; axis < 3; ++axis) {
    result = result && vector_aligned<4>(tensor.as<T>(), tensor.stride(axis));
  }
  return result;
}

// Up to four elements of a row from column `c` on, as floats; 0 beyond the end.
template <class T>
__device__ float4 load_quad(Global<const T> row, int c, int columns, bool quads) {
  if (quads && c + 4 <= columns) {
    const Vector<T, 4> x = load_vector<4>(row, c);
    return {to_float(x.x[0]), to_float(x.x[1]), to_float(x.x[2]), to_float(x.x[3])};
  }
  const auto at = [&](int i) { return c + i < columns ? to_float(row.load(c + i)) : 0.0f; };
  return {at(0), at(1), at(2), at(3)};
}

__device__ inline void store_quad(Global<float> row, int c, int columns, bool quads, float4 x) {
  if (quads && c + 4 <= columns) return row.store_as(c, x);
  row.store(c, x.x);
  if (c + 1 < columns) row.store(c + 1, x.y);
  if (c + 2 < columns) row.store(c + 2, x.z);
  if (c + 3 < columns) row.store(c + 3, x.w);
}

// into = (a into + b from) / (a + b) with a = exp(lse of into), b = exp(lse of from); a side without
// keys leaves the other's bits.
template <class S>
__global__ void __launch_bounds__(kStrideThreads)
    merge_rows(RowSpace space, View<float> into, View<float> into_lse, View<const S> from,
               View<const float> from_lse, bool into_quads, bool from_quads) {
  const int rows_per_block = kStrideThreads / space.lanes;
  const int lane = thread_id() % space.lanes;
  const std::int64_t step = std::int64_t{gridDim.x} * rows_per_block;
  const std::int64_t begin = std::int64_t{blockIdx.x} * rows_per_block;
  const int member = thread_id() / space.lanes;
  // All lanes of a warp make the same number of rounds.
  for (std::int64_t first = begin; first < space.rows; first += step) {
    const std::int64_t row = first + member;
    const bool exists = row < space.rows;
    const std::int64_t lse_at = exists ? space.offset(into_lse, row) : 0;
    const float x = exists ? into_lse.data.load(lse_at) : kNothing;
    const float y = exists ? from_lse.data.load(space.offset(from_lse, row)) : kNothing;
    warp_barrier();  // every lane has read what the first will overwrite
    if (y == kNothing) continue;
    const float largest = fmaxf(x, y);
    const float a = x == kNothing ? 0.0f : expf(x - largest), b = expf(y - largest);
    const float sum = a + b;
    const Global<float> to = into.data + space.offset(into, row);
    const Global<const S> other = from.data + space.offset(from, row);
    for (int c = 4 * lane; c < space.columns; c += 4 * space.lanes) {
      float4 merged = load_quad(other, c, space.columns, from_quads);
      if (x != kNothing) {
        const float4 old = load_quad(Global<const float>(to), c, space.columns, into_quads);
        merged = {(a * old.x + b * merged.x) / sum, (a * old.y + b * merged.y) / sum,
                  (a * old.z + b * merged.z) / sum, (a * old.w + b * merged.w) / sum};
      }
      store_quad(to, c, space.columns, into_quads, merged);
    }
    if (lane == 0) into_lse.data.store(lse_at, x == kNothing ? y : largest + logf(sum));
  }
}

template <class T, class S>
__global__ void __launch_bounds__(kStrideThreads)
    delta_rows(RowSpace space, View<float> delta, View<const T> d_out, View<const S> out,
               bool d_out_quads, bool out_quads) {
  const int rows_per_block = kStrideThreads / space.lanes;
  const int lane = thread_id() % space.lanes;
  const std::int64_t step = std::int64_t{gridDim.x} * rows_per_block;
  const std::int64_t begin = std::int64_t{blockIdx.x} * rows_per_block;
  for (std::int64_t first = begin; first < space.rows; first += step) {
    const std::int64_t row = first + thread_id() / space.lanes;
    const bool exists = row < space.rows;
    float sum = 0;
    if (exists) {
      const Global<const T> left = d_out.data + space.offset(d_out, row);
      const Global<const S> right = out.data + space.offset(out, row);
      for (int c = 4 * lane; c < space.columns; c += 4 * space.lanes) {
        const float4 x = load_quad(left, c, space.columns, d_out_quads);
        const float4 y = load_quad(right, c, space.columns, out_quads);
        sum += x.x * y.x;
        sum += x.y * y.y;
        sum += x.z * y.z;
        sum += x.w * y.w;
      }
    }
    for (int mask = space.lanes / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    if (exists && lane == 0) delta.data.store(space.offset(delta, row), sum);
  }
}

}  // namespace

void CudaKernels::do_merge(const Partial& into, const Partial& from) {
  SP_CHECK(into.out.dtype() == DType::kF32 && into.lse.dtype() == DType::kF32 &&
               from.lse.dtype() == DType::kF32,
           "partial results that merge on a GPU hold f32");
  visit_storage(from.out.dtype(), [&]<class S>() {
    const RowSpace space(into.out);
    launch(gpu_, "merge", merge_rows<S>, grid_stride(gpu_, space.rows * space.lanes), space,
           view<float>(into.out), view<float>(into.lse), view<const S>(from.out),
           view<const float>(from.lse), in_quads<float>(into.out), in_quads<S>(from.out));
  });
}

void CudaKernels::do_attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) {
  SP_CHECK(delta.dtype() == DType::kF32, "delta on a GPU holds f32");
  visit_storage(d_out.dtype(), [&]<class T>() {
    visit_storage(out.dtype(), [&]<class S>() {
      const RowSpace space(out);
      launch(gpu_, "attention_delta", delta_rows<T, S>, grid_stride(gpu_, space.rows * space.lanes),
             space, view<float>(delta), view<const T>(d_out), view<const S>(out),
             in_quads<T>(d_out), in_quads<S>(out));
    });
  });
}

}  // namespace sp::SP_GPU
