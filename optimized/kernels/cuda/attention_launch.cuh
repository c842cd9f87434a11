// From tensors to the arguments of the attention kernels, and the way of accumulators back into
// global memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "optimized/kernels/cuda/attention_stream.cuh"
#include "optimized/kernels/kernels.hpp"

namespace sp::SP_GPU::mma {

constexpr int kLargestHeadSize = 128;

// Whether every row of the tensor, and of all its heads, begins at a multiple of `bytes`.
inline bool rows_aligned(const Tensor& tensor, int bytes) {
  const auto size = static_cast<std::int64_t>(size_of(tensor.dtype()));
  bool aligned = reinterpret_cast<std::intptr_t>(tensor.data()) % bytes == 0;
  for (int axis = 0; axis < 3; ++axis) {
    aligned = aligned && (tensor.extent(axis) <= 1 || tensor.stride(axis) * size % bytes == 0);
  }
  return aligned;
}

template <class T>
Operand<T> operand(const Tensor& tensor) {
  SP_CHECK(tensor.extent(3) <= 1 || tensor.stride(3) == 1, "head columns must be contiguous");
  return {view<const T>(tensor), static_cast<int>(tensor.extent(0)),
          static_cast<int>(tensor.extent(3)),
          tensor.extent(3) % 8 == 0 && rows_aligned(tensor, 16)};
}

// Rows [rows, B, H, width] that a kernel writes in pairs of neighbouring columns.
template <class T>
struct Result {
  View<T> view;
  int width = 0;
  bool pairs = false;  // even columns are aligned to two elements

  Result() = default;
  explicit Result(const Tensor& tensor)
      : view(SP_GPU::view<T>(tensor)),
        width(static_cast<int>(tensor.extent(3))),
        pairs(rows_aligned(tensor, 2 * sizeof(T)) && tensor.stride(3) == 1) {}

  __device__ void store(int i, int b, int h, int column, float x, float y) const {
    const std::int64_t at = view.offset(i, b, h, column);
    if (pairs && column + 1 < width) {
      if constexpr (sizeof(T) == 4) {
        view.data.store_as(at, float2{x, y});
      } else {
        view.data.store_as(at, pack<T>(x, y));
      }
    } else {
      if (column < width) view.data.store(at, from_float<T>(x));
      if (column + 1 < width) view.data.store(at + view.stride[3], from_float<T>(y));
    }
  }
  __device__ void add(int i, int b, int h, int column, float x, float y) const {
    const std::int64_t at = view.offset(i, b, h, column);
    if (pairs && column + 1 < width) {
      const float2 before = view.data.template load_as<float2>(at);
      view.data.store_as(at, float2{before.x + x, before.y + y});
    } else {
      if (column < width) view.data.store(at, view.data.load(at) + x);
      const std::int64_t next = at + view.stride[3];
      if (column + 1 < width) view.data.store(next, view.data.load(next) + y);
    }
  }
};

// result += factor c, of 16 kBlocks rows from `first` on.
template <int kBlocks, int kWidth>
__device__ void add_rows(const Result<float>& result, int rows, int first, int b, int h,
                         const Fragments<kBlocks, kWidth>& c, float factor) {
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = first + fragment_row(m, half);
      if (i >= rows) continue;
#pragma unroll
      for (int n = 0; n < kWidth; ++n) {
        result.add(i, b, h, 8 * n + fragment_column(), factor * c[m][n][2 * half],
                   factor * c[m][n][2 * half + 1]);
      }
    }
  }
}

// Rounds each product: what is subtracted from it later must not see more digits.
template <int kBlocks>
__device__ void scale(Fragments<kBlocks, kColumns>& scores, float factor) {
  for_each_element<kBlocks, kColumns>(
      [&](int m, int n, int i) { scores[m][n][i] = rounded_product(scores[m][n][i], factor); });
}

inline int group_of(const AttentionBlock& block) {
  return static_cast<int>(block.q.extent(2) / std::max<std::int64_t>(block.k.extent(2), 1));
}

// One block per `rows` rows, head and sequence.
inline dim3 grid_of(const Tensor& tensor, int rows) {
  constexpr std::int64_t kLargest = 65535;  // of y and z
  SP_CHECK(tensor.extent(1) <= kLargest && tensor.extent(2) <= kLargest,
           "more sequences or heads than a grid holds");
  return dim3(static_cast<unsigned>((tensor.extent(0) + rows - 1) / rows),
              static_cast<unsigned>(tensor.extent(2)), static_cast<unsigned>(tensor.extent(1)));
}

// f.template operator()<T, kHeadSize>() of the kernel that serves the block.
template <class F>
void visit_kernel(const AttentionBlock& block, F&& f) {
  const std::int64_t size = std::max(block.q.extent(3), block.v.extent(3));
  const auto visit_size = [&]<class T>() {
    if (size <= 64) return f.template operator()<T, 64>();
    if (size <= 96) return f.template operator()<T, 96>();
    SP_CHECK(size <= kLargestHeadSize, "head size of attention on tensor cores");
    return f.template operator()<T, kLargestHeadSize>();
  };
  if (block.q.dtype() == DType::kBF16) return visit_size.template operator()<__nv_bfloat16>();
  SP_CHECK(block.q.dtype() == DType::kF16, "type of attention on tensor cores");
  return visit_size.template operator()<__half>();
}

}  // namespace sp::SP_GPU::mma
