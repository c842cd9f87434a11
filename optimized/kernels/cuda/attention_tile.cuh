// Tiles of 16-bit operands in shared memory, and the two products that attention makes of them.
//
// A tile holds rows of one head, filled up with zeros to kHeadSize columns. Its 16-byte chunks are
// permuted within a row, so that neither eight rows of one chunk (ldmatrix) nor eight chunks of one
// row (cp.async) share a bank.
//
// A warp owns 16 kBlocks rows of every product. The accumulators of s = a bT have the layout that
// the left operand of the next product needs, so probabilities never pass through shared memory.
// The 8 to 16 addresses of a product are computed for every tile: kept, they would not leave enough
// registers for the accumulators.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/device.cuh"
#include "optimized/kernels/cuda/views.hpp"

namespace sp::SP_GPU::mma {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;

// Every kernel keeps its rows and streams tiles of the other side past them, double-buffered.
constexpr int kStreamed = 32;            // rows of a streamed tile: columns of the scores
constexpr int kColumns = kStreamed / 8;  // the same in fragments
constexpr int kStages = 2;

// Rows of all heads in global memory, [rows, B, H, width].
template <class T>
struct Operand {
  View<const T> view;
  int rows = 0, width = 0;
  bool chunks = false;  // every row is whole 16-byte chunks at 16-byte addresses
};

template <class T, int kHeadSize>
class Tile {
 public:
  static constexpr int bytes(int rows) { return rows * kHeadSize * static_cast<int>(sizeof(T)); }

  __device__ explicit Tile(int byte_offset) : data_(shared_memory<T>(byte_offset)) {}

  // Eight elements: columns 8 index, ... of a row.
  __device__ Shared<T> chunk(int row, int index) const {
    // A row of 64 or 128 columns begins at bank 0, one of 96 at bank 0 or 16.
    const int permutation = kHeadSize % 64 == 0 ? row % 8 : row / 2 % 4;
    return data_ + (row * kHeadSize + (index ^ permutation) * 8);
  }

  // Begins to copy kRows rows of a head from row `first` on; done when the thread's asynchronous
  // copies are, and a barrier is passed.
  template <int kRows>
  __device__ void start_copy(const Operand<T>& from, int b, int head, int first) const {
    Global<const T> source = from.view.data + from.view.offset(first, b, head);
    const std::int64_t stride = from.view.stride[0];
    const int rows = from.rows - first, thread = opaque(thread_id());
    if (from.chunks) {
      // A thread stays in its column of chunks; steps of 8 rows keep the permutation.
      constexpr int kChunks = kHeadSize / 8, kStep = kThreads / kChunks / 8 * 8;
      static_assert(kRows % kStep == 0);
      const int index = thread % kChunks;
      if (thread >= kStep * kChunks) return;
      const bool column_inside = index * 8 < from.width;
      source = source + (thread / kChunks * stride + (column_inside ? index * 8 : 0));
#pragma unroll
      for (int row = 0; row < kRows; row += kStep) {
        const bool inside = column_inside && row + thread / kChunks < rows;
        async_copy_16(chunk(row + thread / kChunks, index), source, inside);
        source = source + kStep * stride;
      }
    } else {
#pragma unroll 4
      for (int i = thread; i < kRows * kHeadSize; i += kThreads) {
        const int row = i / kHeadSize, column = i % kHeadSize;
        const bool inside = row < rows && column < from.width;
        const T element = inside ? source.load(row * stride + column) : from_float<T>(0);
        chunk(row, column / 8).store(column % 8, element);
      }
    }
  }

 private:
  Shared<T> data_;
};

// The stages of a stream.
template <class T, int kHeadSize>
class TileStages {
 public:
  static constexpr int kStageBytes = Tile<T, kHeadSize>::bytes(kStreamed);
  static constexpr int kBytes = kStages * kStageBytes;

  __device__ explicit TileStages(int byte_offset) : offset_(byte_offset) {}
  __device__ Tile<T, kHeadSize> at(int stage) const {
    return Tile<T, kHeadSize>(offset_ + stage * kStageBytes);
  }

 private:
  int offset_;
};

// Accumulators of a warp: of [16 kBlocks, 8 kWidth], laid out as mma_16x8x16 has it.
template <int kBlocks, int kWidth>
using Fragments = float[kBlocks][kWidth][4];

// f(block, column of eight, element) of every accumulator of a lane.
template <int kBlocks, int kWidth, class F>
__device__ void for_each_element(F f) {
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
    for (int n = 0; n < kWidth; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) f(m, n, i);
    }
  }
}

template <int kBlocks, int kWidth>
__device__ void clear(Fragments<kBlocks, kWidth>& c) {
  for_each_element<kBlocks, kWidth>([&](int m, int n, int i) { c[m][n][i] = 0; });
}

// c = a bT, with the rows of `a` from `row` on and the kStreamed rows of b.
template <int kBlocks, class T, int kHeadSize>
__device__ void multiply_transposed(Fragments<kBlocks, kColumns>& c, const Tile<T, kHeadSize>& a,
                                    int row, const Tile<T, kHeadSize>& b) {
  const int lane = opaque(lane_id());
  clear<kBlocks, kColumns>(c);
#pragma unroll
  for (int k = 0; k < kHeadSize / 16; ++k) {
    std::uint32_t x[kBlocks][4];
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
      load_matrix_x4(x[m], a.chunk(row + 16 * m + lane % 16, 2 * k + lane / 16));
    }
#pragma unroll
    for (int n = 0; n < kColumns / 2; ++n) {
      std::uint32_t y[4];
      load_matrix_x4(y, b.chunk(16 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
        mma_16x8x16<T>(c[m][2 * n], x[m], y[0], y[1]);
        mma_16x8x16<T>(c[m][2 * n + 1], x[m], y[2], y[3]);
      }
    }
  }
}

// c += p b, with p rounded to T and the kStreamed rows of b.
template <int kBlocks, class T, int kHeadSize>
__device__ void multiply_accumulate(Fragments<kBlocks, kHeadSize / 8>& c,
                                    const Fragments<kBlocks, kColumns>& p,
                                    const Tile<T, kHeadSize>& b) {
  const int lane = opaque(lane_id());
#pragma unroll
  for (int k = 0; k < kColumns / 2; ++k) {
    std::uint32_t x[kBlocks][4];
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const auto& pair = p[m][2 * k + i / 2];
        x[m][i] = i % 2 == 0 ? pack<T>(pair[0], pair[1]) : pack<T>(pair[2], pair[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < kHeadSize / 16; ++n) {
      std::uint32_t y[4];
      load_matrix_x4_transposed(y, b.chunk(16 * k + lane % 16, 2 * n + lane / 16));
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
        mma_16x8x16<T>(c[m][2 * n], x[m], y[0], y[1]);
        mma_16x8x16<T>(c[m][2 * n + 1], x[m], y[2], y[3]);
      }
    }
  }
}

// Row of a warp's rows, and first of its two columns of eight, that a lane's pair `half` belongs to.
__device__ inline int fragment_row(int block, int half) {
  return 16 * block + 8 * half + lane_id() / 4;
}
__device__ inline int fragment_column() { return 2 * (lane_id() % 4); }

}  // namespace sp::SP_GPU::mma
