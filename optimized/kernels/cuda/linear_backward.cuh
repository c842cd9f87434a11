// What the kernels of linear attention backward share: their operands, and the rows of a tile times a
// factor.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#include "optimized/kernels/cuda/linear_backward.hpp"

namespace sp::SP_GPU {

// Two blocks per multiprocessor: what registers of 256 threads allow without spilling.
constexpr int kTileBlocks = 2;

// X: type of the vectors as the map sees them, V: of v, Y: of d_sums.
template <class X, class V, class Y>
struct BackwardArguments {
  View<const X> q, k;
  View<const V> v;
  View<const Y> d_sums;
  DeviceTerms terms;
  int n, H, G, SH, E, W;
};

template <class X, class V, class Y>
BackwardArguments<X, V, Y> arguments_of(const BackwardChunk& chunk) {
  return {
      chunk.q.template view<X>(),  chunk.k.template view<X>(),        view<const V>(chunk.block.v),
      view<const Y>(chunk.d_sums), DeviceTerms(chunk.block, chunk.D), static_cast<int>(chunk.n),
      static_cast<int>(chunk.H),   static_cast<int>(chunk.G),         static_cast<int>(chunk.SH),
      static_cast<int>(chunk.E),   static_cast<int>(chunk.W)};
}

// Calls f.operator()<X, V, Y, decay, mapped>(): with a normaliser d_sums holds f32, else what q does.
template <class F>
void visit_backward(const BackwardChunk& chunk, F&& f) {
  const DType storage = chunk.storage();
  visit_linear(
      chunk.block.terms.module, storage, [&]<class X, class V, Decay decay, bool mapped>() {
        SP_CHECK(
            !chunk.d_sums.defined() || chunk.d_sums.dtype() == (mapped ? DType::kF32 : storage),
            "on a GPU d_sums holds f32 with a normaliser, else the type of q");
        f.template operator()<X, V, std::conditional_t<mapped, float, V>, decay, mapped>();
      });
}

// Behind the tiles in shared memory: starts, powers or totals, the list of features.
struct SmallTables {
  int offset;
  __device__ Shared<int> starts() const { return shared_memory<int>(offset); }
  __device__ Shared<float> powers() const { return shared_memory<float>(offset + kStartsBytes); }
  __device__ Shared<float> totals() const { return powers(); }
  __device__ Shared<Feature> features() const {
    return shared_memory<Feature>(offset + kStartsBytes + kTotalsBytes);
  }
};
constexpr int kSmallTablesBytes =
    kStartsBytes + kTotalsBytes + kTile * static_cast<int>(sizeof(Feature));
static_assert(kPowersBytes <= kTotalsBytes);

// tile[row] *= factor(row), by the block.
template <class F>
__device__ void scale_rows(Shared<float> tile, F factor) {
#pragma unroll 1
  for (int i = thread_id(); i < kTile * kTile / 4; i += kTileThreads) {
    const int row = i / (kTile / 4), at = row * kTileStride + i % (kTile / 4) * 4;
    const float by = factor(row);
    const float4 x = tile.load_as<float4>(at);
    tile.store_as(at, float4{x.x * by, x.y * by, x.z * by, x.w * by});
  }
}

// The elements from row f and column w on of the state of one tile and head become a tile.
__device__ inline void load_state(Shared<float> tile, const TileStates& states, int index, int b,
                                  int s, int f, int w, int F, int W) {
  const Global<const float> from =
      states.view.data + (index * states.tile_stride + states.view.offset(f, b, s, w));
  load_tile(tile, from, states.view.stride[0], F - f, W - w);
}

// What the state at the end of a tile gives to the keys of the tile, or the state before it to its
// queries, fades: a factor per row, but for decays per channel. Queries bring the scale in.
template <bool kKeys, Decay decay>
struct RowFactor {
  Shared<const int> starts;
  Shared<const float> powers;
  int count;
  float scale;

  __device__ float operator()(int row) const {
    constexpr bool kPowers = decay == Decay::kPerHead;
    if constexpr (kKeys) {
      if (row < starts.load(kTile) || row >= count) return 0;
      return kPowers ? powers.load(count - 1 - row) : 1.0f;
    } else {
      if (starts.load(row) >= 0) return 0;
      return kPowers ? scale * powers.load(row + 1) : scale;
    }
  }
};

}  // namespace sp::SP_GPU
