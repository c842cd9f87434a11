// What plain attention forward and backward share: operands of any type, passing through shared
// memory in slices of 64 columns, and the masked scores of a pair of tiles.
//
// The rows of a pair are held by a block for its lifetime, the columns pass by. Rows are queries and
// columns keys, or the other way round where the keys are held (gradients of keys and values).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "optimized/kernels/cuda/mask.cuh"
#include "optimized/kernels/cuda/tile.cuh"

namespace sp::SP_GPU::plain {

static_assert(kTile == kTileTokens);

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// [rows, columns] of one head from a tile's first token on. The type is known at run time: one
// branch per slice, so that types do not multiply kernels.
struct Strip {
  const void* data;
  DType dtype;
  int stride;
  int rows;
  int columns;

  // The slice of the columns from `first` on, 0 beyond the strip.
  __device__ void load(Shared<float> tile, int first) const {
    if (dtype == DType::kBF16) {
      load_as<__nv_bfloat16>(tile, first);
    } else if (dtype == DType::kF16) {
      load_as<__half>(tile, first);
    } else {
      load_as<float>(tile, first);
    }
  }

  template <class T>
  __device__ void load_as(Shared<float> tile, int first) const {
    load_tile(tile, Global<const T>(static_cast<const T*>(data) + first), stride, rows,
              columns - first);
  }
};

// A tensor [n, B, H, columns] of f32, bf16 or f16 whose rows are contiguous.
struct Operand {
  void* data;
  DType dtype;
  int element_bytes;
  int rows, columns;
  int row_stride, sequence_stride, head_stride;

  explicit Operand(const Tensor& tensor)
      : data(tensor.data()),
        dtype(tensor.dtype()),
        element_bytes(static_cast<int>(size_of(dtype))),
        rows(to_int(tensor.extent(0))),
        columns(to_int(tensor.extent(3))),
        row_stride(to_int(tensor.stride(0))),
        sequence_stride(to_int(tensor.stride(1))),
        head_stride(to_int(tensor.stride(2))) {
    SP_CHECK(dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16,
             "GPU kernels know f32, bf16 and f16");
    SP_CHECK(columns <= 1 || tensor.stride(3) == 1, "elements of a row must be neighbours");
  }
  static int to_int(std::int64_t value) {  // one instruction multiplies two of them to 64 bits
    SP_CHECK(value <= std::numeric_limits<int>::max(), "a tensor is too large for plain attention");
    return static_cast<int>(value);
  }

  __device__ std::int64_t offset(int i, int b, int h) const {
    return std::int64_t{i} * row_stride + std::int64_t{b} * sequence_stride +
           std::int64_t{h} * head_stride;
  }
  template <class T>
  __device__ Global<T> row(int i, int b, int h) const {
    return Global<T>(static_cast<T*>(data) + offset(i, b, h));
  }
  __device__ Strip strip(int first_row, int b, int h) const {
    return {static_cast<const char*>(data) + offset(first_row, b, h) * element_bytes, dtype,
            row_stride, rows - first_row, columns};
  }
};

struct Block {
  Operand q, k, v;
  TokenTable q_tokens, k_tokens;
  Mask mask;
  int sequences;
  int key_heads;
  int group;  // query heads of a key head
  float scale;

  Block(TokenTables& tables, const AttentionBlock& block)
      : q(block.q),
        k(block.k),
        v(block.v),
        q_tokens(tables.of(block.q_tokens)),
        k_tokens(tables.of(block.k_tokens)),
        mask(block.mask),
        sequences(static_cast<int>(block.q.extent(1))),
        key_heads(static_cast<int>(block.k.extent(2))),
        group(static_cast<int>(block.q.extent(2) / block.k.extent(2))),
        scale(static_cast<float>(block.scale)) {}
};

// Which tile, head, sequence and part of the output columns a thread block works on: neighbours in
// the order of their start share a head.
struct Place {
  int tile, head, sequence, part;

  __device__ Place(std::int64_t tiles, int heads, int sequences) {
    const auto count = static_cast<unsigned>(tiles);
    const auto rest = static_cast<int>(blockIdx.x / count);
    tile = static_cast<int>(blockIdx.x % count);
    head = rest % heads;
    sequence = rest / heads % sequences;
    part = rest / heads / sequences;
  }
};

// c = x yT over all columns of both, slice by slice. Where x has one slice only it stays in its
// tile: `held` says that it is there. Ends with both tiles being read.
__device__ inline void inner_products(Micro& c, Shared<float> x_tile, Shared<float> y_tile,
                                      const Strip& x, const Strip& y, bool held) {
  clear(c);
  int first = 0;
  do {
    block_barrier();
    if (!held || x.columns > kTile) x.load(x_tile, first);
    y.load(y_tile, first);
    block_barrier();
    multiply<Stored::kPlain, Stored::kTransposed>(c, x_tile, y_tile,
                                                  product_depth(x.columns - first));
    first += kTile;
  } while (first < x.columns);
}

// Products become scores: scaled, and -inf where the query does not see the key or where there is
// no column. `rows` and `columns` are the tokens, from the tiles' first on.
template <bool keys_held>
__device__ void mask_scores(Micro& s, const Block& block, Visibility visibility, int b,
                            int first_row, int first_column) {
  const TokenTable& rows = keys_held ? block.k_tokens : block.q_tokens;
  const TokenTable& columns = keys_held ? block.q_tokens : block.k_tokens;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) s[i][j] = rounded_product(s[i][j], block.scale);
  }
  if (visibility == Visibility::kFull && first_column + kTile <= columns.count) return;
  int row_position[4], row_segment[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = first_row + micro_row(i);
    row_position[i] = row < rows.count ? rows.positions.load(row) : 0;
    row_segment[i] = row < rows.count ? block.mask.segment(b, row_position[i]) : 0;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int column = first_column + micro_column<true>(j);
    const bool exists = column < columns.count;
    const int position = exists ? columns.positions.load(column) : 0;
    const int segment = exists ? block.mask.segment(b, position) : 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int query = keys_held ? position : row_position[i];
      const int key = keys_held ? row_position[i] : position;
      const bool seen = exists && segment == row_segment[i] && block.mask.band_sees(query, key);
      if (!seen) s[i][j] = -kInfinity;
    }
  }
}

// Weights go to their tile as the left operand of a product: element (i, j) of this thread.
__device__ inline int weight_at(int i, int j) {
  return micro_row(i) * kTileStride + micro_column<true>(j);
}
__device__ inline void store_weights(Shared<float> tile, const Micro& weights) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) tile.store(weight_at(i, j), weights[i][j]);
  }
}

// Slices of kTile columns that blocks of kSlices each cover; at least one block.
inline std::int64_t blocks_of(std::int64_t columns, int slices) {
  const std::int64_t width = std::int64_t{kTile} * slices;
  return std::max<std::int64_t>(1, (columns + width - 1) / width);
}

}  // namespace sp::SP_GPU::plain
