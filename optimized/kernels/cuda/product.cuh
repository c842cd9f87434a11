// Many products of matrices in one launch, in f32: the arithmetic of score rows and projections.
//
//   C[z][r, c] (+)= factor sum over s and k of A[z, s][r, k] B[z, s][c, k]
//
// Indices    z and s are the leading and the trailing ones of three axes: batch, key head, query
//            head of its group. A stride of 0 repeats an operand, which is how heads share keys.
// Tile       128 x 64 of C per block of 256 threads, 8 x 4 per thread: 32 multiply-adds for three
//            16-byte reads of shared memory, 21 flops per byte that comes from L2. Slabs of 16 of
//            the depth are double-buffered; the next one is on its way in registers meanwhile.
// Banks      Slabs lie depth-major with their rows permuted, so that writes along either axis and
//            all reads meet no bank twice.
// Few tiles  Where C alone would leave the GPU idle (Linformer's sums over tokens) the depth is split
//            over blocks and the parts are added in their order: no atomics.
// Not cuBLAS Its strided batches want heads in equal steps and one type for both operands: grouped
//            heads, and 16-bit operands beside f32 ones, would each need a copy first.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "optimized/kernels/cuda/device.cuh"
#include "optimized/kernels/cuda/views.hpp"

namespace sp::SP_GPU::product {

constexpr int kRows = 128, kColumns = 64, kDepth = 16;  // of a tile and a slab
constexpr int kThreads = 256;
constexpr int kSlab = (kRows + kColumns) * kDepth;  // elements of both operands
constexpr int kSharedBytes = 2 * kSlab * static_cast<int>(sizeof(float));

template <class T>
struct alignas(4 * sizeof(T)) Quad {
  T x[4];
};

// A or B: [rows, depth] for each index of the axes. The elements of a row are neighbours, or, if
// transposed, those of a column.
template <class T, bool kTransposed>
struct Operand {
  Global<const T> data;
  std::int64_t stride = 0;  // of the other axis
  std::int64_t axis_stride[3] = {0, 0, 0};
  bool aligned = false;  // every fourth element of a line can be read as a Quad

  __device__ Global<const T> at(std::int64_t row, std::int64_t depth) const {
    return data + (kTransposed ? depth * stride + row : row * stride + depth);
  }
  // The quad at (row, depth) of the window [rows, depths] that starts at `from`; 0 beyond it.
  __device__ Quad<T> load(Global<const T> from, int row, int depth, int rows, int depths) const {
    const int line = kTransposed ? depth : row, lines = kTransposed ? depths : rows;
    const int begin = kTransposed ? row : depth, end = kTransposed ? rows : depths;
    const std::int64_t first = line * stride + begin;
    if (line < lines && begin + 4 <= end && aligned) return from.template load_as<Quad<T>>(first);
    Quad<T> quad;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool inside = line < lines && begin + e < end;
      quad.x[e] = inside ? from.load(first + e) : from_float<T>(0.0f);
    }
    return quad;
  }
};

struct Result {
  Global<float> data;
  std::int64_t stride = 0;  // of rows
  std::int64_t axis_stride[3] = {0, 0, 0};
  float factor = 1;
  bool accumulate = false;
  bool aligned = false;

  __device__ void put(std::int64_t at, float value) const {
    data.store(at, accumulate ? data.load(at) + factor * value : factor * value);
  }
  __device__ void put(std::int64_t at, const Quad<float>& value) const {
    Quad<float> sum{};
    if (accumulate) sum = data.load_as<Quad<float>>(at);
    for (int e = 0; e < 4; ++e) sum.x[e] += factor * value.x[e];
    data.store_as(at, sum);
  }
};

struct Extents {
  std::int64_t rows = 0, columns = 0, depth = 0;
  int axes[3] = {1, 1, 1};
  int summed = 1;  // product of the trailing axes that are summed over
  int splits = 1;  // of the depth and the summed axes together

  __host__ __device__ int batch() const { return axes[0] * axes[1] * axes[2] / summed; }
  __host__ __device__ int row_tiles() const { return static_cast<int>((rows + kRows - 1) / kRows); }
  __host__ __device__ int column_tiles() const {
    return static_cast<int>((columns + kColumns - 1) / kColumns);
  }
  __host__ __device__ int slabs() const {
    return static_cast<int>((depth + kDepth - 1) / kDepth) * summed;
  }
  __device__ std::int64_t origin(int index, const std::int64_t (&stride)[3]) const {
    return index / (axes[1] * axes[2]) * stride[0] + index / axes[2] % axes[1] * stride[1] +
           index % axes[2] * stride[2];
  }
};

// Rows or columns [first, first + kWidth) of one operand on their way into shared memory.
template <class T, bool kTransposed, int kWidth>
struct Stage {
  static constexpr int kQuads = kWidth * kDepth / 4 / kThreads;
  Quad<T> quads[kQuads];

  // Neighbouring threads take neighbouring quads of a line.
  __device__ static int row_of(int quad) {
    const int i = thread_id() + quad * kThreads;
    return kTransposed ? i % (kWidth / 4) * 4 : i / (kDepth / 4);
  }
  __device__ static int depth_of(int quad) {
    const int i = thread_id() + quad * kThreads;
    return kTransposed ? i / (kWidth / 4) : i % (kDepth / 4) * 4;
  }
  // Where the rows from `row` to the next multiple of 8 lie.
  __device__ static int place(int row, int depth) { return depth * kWidth + (row ^ depth / 4 * 8); }

  // `rows` and `depths`: what there is from (row, depth) on.
  __device__ void fetch(const Operand<T, kTransposed>& operand, std::int64_t origin,
                        std::int64_t row, std::int64_t depth, std::int64_t rows,
                        std::int64_t depths) {
    const Global<const T> from = operand.at(row, depth) + origin;
    const int window_rows = rows < kWidth ? static_cast<int>(rows) : kWidth;
    const int window_depths = depths < kDepth ? static_cast<int>(depths) : kDepth;
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
      quads[quad] = operand.load(from, row_of(quad), depth_of(quad), window_rows, window_depths);
    }
  }
  __device__ void write(Shared<float> slab) const {
#pragma unroll
    for (int quad = 0; quad < kQuads; ++quad) {
      const int row = row_of(quad), depth = depth_of(quad);
      Quad<float> wide;
      for (int e = 0; e < 4; ++e) wide.x[e] = to_float(quads[quad].x[e]);
      if constexpr (kTransposed) {
        slab.store_as(place(row, depth), wide);
      } else {
        for (int e = 0; e < 4; ++e) slab.store(place(row, depth) + e * kWidth, wide.x[e]);
      }
    }
  }
};

// c is what the caller wants or, with splits, their dense parts [splits, batch, rows, columns].
template <class A, bool kATransposed, class B, bool kBTransposed>
__global__ void __launch_bounds__(kThreads, 2)
    multiply(Operand<A, kATransposed> a, Operand<B, kBTransposed> b, Result c, Extents extents) {
  int rest = static_cast<int>(blockIdx.x);
  const std::int64_t column = static_cast<std::int64_t>(rest % extents.column_tiles()) * kColumns;
  rest /= extents.column_tiles();
  const std::int64_t row = static_cast<std::int64_t>(rest % extents.row_tiles()) * kRows;
  rest /= extents.row_tiles();
  const int split = rest % extents.splits, z = rest / extents.splits;
  const std::int64_t slabs = extents.slabs();
  const int begin = static_cast<int>(slabs * split / extents.splits);
  const int end = static_cast<int>(slabs * (split + 1) / extents.splits);

  Stage<A, kATransposed, kRows> a_stage;
  Stage<B, kBTransposed, kColumns> b_stage;
  const int slabs_per_sum = static_cast<int>(slabs) / extents.summed;
  const auto fetch = [&](int slab) {
    if (slab >= end) return;
    const int index = z * extents.summed + slab / slabs_per_sum;
    const int depth = slab % slabs_per_sum * kDepth;
    a_stage.fetch(a, extents.origin(index, a.axis_stride), row, depth, extents.rows - row,
                  extents.depth - depth);
    b_stage.fetch(b, extents.origin(index, b.axis_stride), column, depth, extents.columns - column,
                  extents.depth - depth);
  };
  // This thread's four columns, and its four rows in each half of the tile: 4 x 8 threads a warp.
  const int my_row = (warp_id() / 2 * 4 + lane_id() / 8) * 4;
  const int my_column = (warp_id() % 2 * 8 + lane_id() % 8) * 4;
  float sum[8][4] = {};
  fetch(begin);
  for (int slab = begin; slab < end; ++slab) {
    const Shared<float> a_slab = shared_memory<float>(0) + slab % 2 * kSlab;
    const Shared<float> b_slab = a_slab + kRows * kDepth;
    a_stage.write(a_slab);
    b_stage.write(b_slab);
    block_barrier();  // the other slab is free again behind it, too
    fetch(slab + 1);
#pragma unroll 4
    for (int k = 0; k < kDepth; ++k) {
      const Quad<float> x[2] = {a_slab.load_as<Quad<float>>(a_stage.place(my_row, k)),
                                a_slab.load_as<Quad<float>>(a_stage.place(my_row + kRows / 2, k))};
      const auto y = b_slab.load_as<Quad<float>>(b_stage.place(my_column, k));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += x[i / 4].x[i % 4] * y.x[j];
      }
    }
  }

  const std::int64_t part = static_cast<std::int64_t>(split) * extents.batch() + z;
  const std::int64_t origin = extents.splits > 1
                                  ? part * extents.rows * extents.columns
                                  : extents.origin(z * extents.summed, c.axis_stride);
  const std::int64_t q = column + my_column;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::int64_t r = row + my_row + i / 4 * (kRows / 2) + i % 4;
    const std::int64_t at = origin + r * c.stride + q;
    if (r < extents.rows && q + 4 <= extents.columns && c.aligned) {
      c.put(at, Quad<float>{{sum[i][0], sum[i][1], sum[i][2], sum[i][3]}});
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (r < extents.rows && q + j < extents.columns) c.put(at + j, sum[i][j]);
    }
  }
}

// c (+)= factor times the sum of the parts [splits, batch, rows, columns]; one thread per element.
[[maybe_unused]] static __global__ void __launch_bounds__(kThreads)
    add_parts(Result c, Global<const float> parts, Extents extents) {
  const std::int64_t plane = extents.rows * extents.columns, count = plane * extents.batch();
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + thread_id();
  if (i >= count) return;
  float sum = 0;
  for (int split = 0; split < extents.splits; ++split) sum += parts.load(split * count + i);
  const int z = static_cast<int>(i / plane);
  const std::int64_t row = i % plane / extents.columns, column = i % extents.columns;
  c.put(extents.origin(z * extents.summed, c.axis_stride) + row * c.stride + column, sum);
}

// ---- Host side ---------------------------------------------------------------------------------

// The strides of a tensor [i, b, h, d] by batch, key head and query head of a group of `group`; one
// with key heads only has group 0.
struct HeadStrides {
  std::int64_t of[3];
  HeadStrides(const Tensor& tensor, std::int64_t group)
      : of{tensor.stride(1), std::max<std::int64_t>(group, 1) * tensor.stride(2),
           group == 0 ? 0 : tensor.stride(2)} {}
  HeadStrides() : of{0, 0, 0} {}  // a matrix that all heads share
};

// Whether lines of whole quads start at multiples of 4 elements and of `bytes`.
inline bool lines_align(const void* data, std::int64_t stride, const HeadStrides& heads,
                        std::int64_t bytes) {
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(data));
  return address % bytes == 0 && (stride | heads.of[0] | heads.of[1] | heads.of[2]) % 4 == 0;
}

// The matrix [i, d] of a tensor, or its transpose [d, i].
template <class T, bool kTransposed = false>
Operand<T, kTransposed> operand(const Tensor& tensor, const HeadStrides& heads) {
  SP_CHECK(tensor.stride(3) == 1 || tensor.extent(3) <= 1, "the last axis is contiguous");
  return {Global<const T>(tensor.as<T>()),
          tensor.stride(0),
          {heads.of[0], heads.of[1], heads.of[2]},
          lines_align(tensor.data(), tensor.stride(0), heads, 4 * sizeof(T))};
}

inline Result result(const Tensor& tensor, const HeadStrides& heads) {
  SP_CHECK(tensor.dtype() == DType::kF32, "results of products are f32");
  SP_CHECK(tensor.stride(3) == 1 || tensor.extent(3) <= 1, "the last axis is contiguous");
  return {Global<float>(tensor.as<float>()),
          tensor.stride(0),
          {heads.of[0], heads.of[1], heads.of[2]},
          1,
          true,
          lines_align(tensor.data(), tensor.stride(0), heads, 16)};
}

// How many blocks share the depth of one tile: a function of the operands, not of the GPU, so that
// all of them round alike.
inline int splits_of(const Extents& extents) {
  constexpr int kEnoughBlocks = 512, kLeastSlabs = 32;
  const std::int64_t tiles =
      std::int64_t{extents.batch()} * extents.row_tiles() * extents.column_tiles();
  if (tiles == 0) return 1;
  return static_cast<int>(std::clamp<std::int64_t>(kEnoughBlocks / tiles, 1,
                                                   std::max(extents.slabs() / kLeastSlabs, 1)));
}

template <class A, bool kATransposed, class B, bool kBTransposed>
void run(const Gpu& gpu, const char* name, const Operand<A, kATransposed>& a,
         const Operand<B, kBTransposed>& b, const Result& c, Extents extents) {
  if (extents.summed == 0 || extents.batch() == 0) return;
  if (c.accumulate && extents.depth == 0) return;
  extents.splits = splits_of(extents);
  const std::int64_t count = extents.rows * extents.columns * extents.batch();
  const std::int64_t blocks =
      std::int64_t{extents.batch()} * extents.splits * extents.row_tiles() * extents.column_tiles();
  const auto grid = [](std::int64_t x) { return dim3(static_cast<unsigned>(x), 1, 1); };
  const Launch shape{grid(blocks), kThreads, kSharedBytes};
  if (extents.splits == 1) {
    launch(gpu, name, &multiply<A, kATransposed, B, kBTransposed>, shape, a, b, c, extents);
    return;
  }
  const Scratch scratch(gpu, extents.splits * count * static_cast<std::int64_t>(sizeof(float)));
  Result parts{Global<float>(scratch.as<float>()), extents.columns};
  parts.aligned = extents.columns % 4 == 0;
  launch(gpu, name, &multiply<A, kATransposed, B, kBTransposed>, shape, a, b, parts, extents);
  launch(gpu, "add_parts", &add_parts, Launch{grid((count + kThreads - 1) / kThreads), kThreads, 0},
         c, Global<const float>(scratch.as<float>()), extents);
}

}  // namespace sp::SP_GPU::product
