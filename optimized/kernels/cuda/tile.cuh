// Products of f32 tiles in shared memory, and the way of tensor rows into such tiles and back.
//
// Block    kTileThreads threads; the thread at (y, x) of 16 x 16 owns 4 x 4 elements of a 64 x 64
//          product: rows 4y..4y+3, and columns 4x..4x+3, or x, x+16, x+32, x+48 if b is transposed.
//          So the rows 8w..8w+7 of a product belong to warp w alone.
// Layout   A tile is kTile rows of kTileStride elements. The 4 of padding put 8 neighbouring rows
//          into different banks: every access below moves 16 bytes per lane without conflicts.
// Cost     8 16-byte loads per thread for 64 multiply-adds.
// Order    Sums run over the depth in ascending order, one addition after the other.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "optimized/kernels/cuda/vectors.cuh"

namespace sp::SP_GPU {

constexpr int kTile = 64;  // rows and columns
constexpr int kTileStride = kTile + 4;
constexpr int kTileBytes = kTile * kTileStride * static_cast<int>(sizeof(float));
constexpr int kTileThreads = 256;

using Micro = float[4][4];  // this thread's elements of a product

__device__ inline int micro_row(int i) { return thread_id() / 16 * 4 + i; }
template <bool b_transposed>
__device__ int micro_column(int j) {
  return b_transposed ? thread_id() % 16 + 16 * j : thread_id() % 16 * 4 + j;
}

__device__ inline void clear(Micro& c) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) c[i][j] = 0;
  }
}

enum class Stored : std::uint8_t { kPlain, kTransposed };

// c += a b over `depth`, a multiple of 4 and at most kTile. a is [64, depth] as a tile stores it, or
// [depth, 64] if transposed; b is [depth, 64], or [64, depth] if transposed.
template <Stored a_stored, Stored b_stored>
__device__ void multiply(Micro& c, Shared<const float> a, Shared<const float> b, int depth) {
  constexpr bool kTransposedA = a_stored == Stored::kTransposed;
  constexpr bool kTransposedB = b_stored == Stored::kTransposed;
  a = a + micro_row(0) * (kTransposedA ? 1 : kTileStride);
  b = b + micro_column<kTransposedB>(0) * (kTransposedB ? kTileStride : 1);
  const auto at = [](const float4& v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
  };
#pragma unroll 1
  for (int k = 0; k < depth; k += 4) {
    float4 x[4];  // plain a: x[row] along the depth; transposed: x[depth] along the rows
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = a.load_as<float4>(kTransposedA ? (k + i) * kTileStride : i * kTileStride + k);
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) {  // plain b: of the depth; transposed: of the columns
      const float4 y =
          b.load_as<float4>(kTransposedB ? 16 * n * kTileStride + k : (k + n) * kTileStride);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int d = kTransposedB ? e : n, j = kTransposedB ? n : e;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          c[i][j] += (kTransposedA ? at(x[d], i) : at(x[i], d)) * at(y, e);
        }
      }
    }
  }
}

// The depth that a product needs for `count` elements: what lies beyond is 0 in a loaded tile.
__device__ inline int product_depth(std::int64_t count) {
  return count >= kTile ? kTile : (static_cast<int>(count) + 3) / 4 * 4;
}

// ---- From and to global memory ------------------------------------------------------------------
//
// Elements of a row are neighbours, rows lie `stride` elements apart. [rows, columns] is what there
// is from the tile's corner on: counts beyond kTile mean all of the tile, negative ones nothing.

// Four elements as floats.
template <class T>
__device__ float4 widen(const Vector<T, 4>& quad) {
  return {to_float(quad.x[0]), to_float(quad.x[1]), to_float(quad.x[2]), to_float(quad.x[3])};
}

// The tile becomes the matrix as f32, 0 beyond it. Rows that allow vectors of four elements are
// loaded all at once, others row by row: in fewer registers.
template <class T>
__device__ void load_tile(Shared<float> to, Global<const T> from, std::int64_t stride,
                          std::int64_t rows, std::int64_t columns) {
  constexpr int kRounds = 4, kRows = kTile / kRounds;
  const int row = thread_id() / kRows, column = thread_id() % kRows * 4;
  const Vector<T, 4> zeros{from_float<T>(0), from_float<T>(0), from_float<T>(0), from_float<T>(0)};
  to = to + (row * kTileStride + column);
  rows -= row, columns -= column;
  const bool vectors = columns % 4 == 0 && vector_aligned<4>(from.address(), stride);
  from = from + (row * stride + column);
  if (vectors) {
    Vector<T, 4> quads[kRounds];
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
      const bool exists = i * kRows < rows && columns > 0;
      quads[i] = exists ? load_vector<4>(from, i * kRows * stride) : zeros;
    }
#pragma unroll
    for (int i = 0; i < kRounds; ++i) to.store_as(i * kRows * kTileStride, widen(quads[i]));
  } else {
#pragma unroll 1
    for (int i = 0; i < kRounds; ++i) {
      Vector<T, 4> quad = zeros;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (i * kRows < rows && e < columns) quad.x[e] = from.load(i * kRows * stride + e);
      }
      to.store_as(i * kRows * kTileStride, widen(quad));
    }
  }
}

// The matrix becomes c, or c is added to it. The b of the product was plain.
template <bool adds, class T>
__device__ void store_micro(const Micro& c, Global<T> to, std::int64_t stride, std::int64_t rows,
                            std::int64_t columns) {
  const int column = micro_column<false>(0);
  const bool aligned = sizeof(T) == 4 && vector_aligned<4>(to.address(), stride);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (micro_row(i) >= rows) break;
    const std::int64_t at = micro_row(i) * stride + column;
    if constexpr (std::is_same_v<T, float>) {
      if (aligned && column + 4 <= columns) {
        const float4 x{c[i][0], c[i][1], c[i][2], c[i][3]};
        if constexpr (adds) {
          const float4 old = to.template load_as<float4>(at);
          to.store_as(at, float4{old.x + x.x, old.y + x.y, old.z + x.z, old.w + x.w});
        } else {
          to.store_whole(at, x);
        }
        continue;
      }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (column + j >= columns) break;
      to.store(at + j, from_float<T>(adds ? to_float(to.load(at + j)) + c[i][j] : c[i][j]));
    }
  }
}

}  // namespace sp::SP_GPU
