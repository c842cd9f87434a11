// The weights between the queries and the keys of one tile: products, maps, decays, mask.
//
// Per channel  Decays between two tokens are split where neither factor exceeds 1. The 16 x 16
//              blocks beside the diagonal are split at the border between them, those of the lower
//              left quarter in the middle of the tile; on the diagonal decays are built up token by
//              token. One product, two splits: each warp takes its operands from either tile.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {

// ---- Decays per channel ------------------------------------------------------------------------

// Turns the tiles of queries and keys into the operands of the two splits. `near` is split between
// neighbouring blocks of 16 tokens, `far` in the middle of the tile; earlier tokens hold decayed keys,
// later ones decayed queries. A thread has the 16 tokens of one block in one channel.
__device__ inline void split_decays(Shared<float> q, Shared<float> k, Shared<const float> gates) {
  static_assert(kRuns == 4);
  const int channel = thread_id() % kTile, run = thread_id() / kTile, first = run * kRun;
  q = q + channel;
  k = k + channel;
  gates = gates + channel;
  // From the border of the split to the block, or from the block to that border.
  const float far = run == 0   ? gate_product(gates, kRun, 2 * kRun)
                    : run == 3 ? gate_product(gates, 2 * kRun, 3 * kRun)
                               : 1.0f;
  float factor = 1;
#pragma unroll 4
  for (int at = first * kTileStride; at < (first + kRun) * kTileStride; at += kTileStride) {
    factor *= gates.load(at);
    q.store(at, q.load(at) * factor);
  }
  factor = 1;
#pragma unroll 4
  for (int i = kRun - 1; i >= 0; --i) {
    const int at = (first + i) * kTileStride;
    const float query = q.load(at), key = k.load(at) * factor;
    q.store(at, run % 2 == 1 ? query : key);
    k.store(at, run < 2 ? key * far : query * far);
    factor *= gates.load(at);
  }
}

// c[j][i] += the weights of blocks below the diagonal. All rows of a warp are in one block; its
// columns i are in block i.
__device__ inline void multiply_split(Micro& c, Shared<const float> near, Shared<const float> far,
                                      int depth) {
  const int row = micro_row(0), block = row / kRun, column = thread_id() % 16;
#pragma unroll
  for (int j = 0; j < kRuns - 1; ++j) {
    if (j >= block) continue;
    const Shared<const float> tile = j / 2 == block / 2 ? near : far;
    const Shared<const float> a = tile + row * kTileStride;
    const Shared<const float> b = tile + (column + j * kRun) * kTileStride;
#pragma unroll 1
    for (int d = 0; d < depth; d += 4) {
      const float4 y = b.load_as<float4>(d);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float4 x = a.load_as<float4>(i * kTileStride + d);
        c[i][j] += x.x * y.x;
        c[i][j] += x.y * y.y;
        c[i][j] += x.z * y.z;
        c[i][j] += x.w * y.w;
      }
    }
  }
}

// Weights on the diagonal, of the key thread / 4: four threads share its channels, and each is left
// with the sums of every fourth query of its block. Half a block at a time: registers are short.
constexpr int kDiagonal = kRun / 4;
__device__ inline void multiply_diagonal(float (&own_sums)[kDiagonal], Shared<const float> q,
                                         Shared<const float> k, Shared<const float> gates,
                                         int depth) {
  constexpr int kHalf = kRun / 2;
  const int token = thread_id() / 4, own = token % kRun, first = token - own;
#pragma unroll
  for (int half = 0; half < kRun; half += kHalf) {
    float sum[kHalf] = {};
#pragma unroll 1
    for (int d = thread_id() % 4 * 4; d < depth; d += 16) {
      float4 key = k.load_as<float4>(token * kTileStride + d);
      const auto fade = [&](int j) {
        const float4 gate = gates.load_as<float4>((first + j) * kTileStride + d);
        if (j > own) key = {key.x * gate.x, key.y * gate.y, key.z * gate.z, key.w * gate.w};
      };
#pragma unroll 4
      for (int j = 0; j < half; ++j) fade(j);
#pragma unroll
      for (int j = 0; j < kHalf; ++j) {
        fade(half + j);
        const float4 query = q.load_as<float4>((first + half + j) * kTileStride + d);
        sum[j] += query.x * key.x;
        sum[j] += query.y * key.y;
        sum[j] += query.z * key.z;
        sum[j] += query.w * key.w;
      }
    }
#pragma unroll
    for (int j = 0; j < kHalf; ++j) {
      const float weight = warp_sum<4>(sum[j]);
      if (thread_id() % 4 == j % 4) own_sums[(half + j) / 4] += weight;
    }
  }
}

// ---- All modules -------------------------------------------------------------------------------

// Row j of the weights, 0 where j does not see i.
template <Decay decay>
__device__ void store_weights(Shared<float> weights, const Micro& c, const FeatureMap& map,
                              Shared<const float> powers, Shared<const int> starts) {
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int query = micro_row(r), start = starts.load(query);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int key = micro_column<true>(j);
      if (decay == Decay::kPerChannel && key / kRun == query / kRun) continue;
      const bool visible = key <= query && key >= start;
      float weight = map.weight(c[r][j]);
      if (decay == Decay::kPerHead) weight *= powers.load(visible ? query - key : 0);
      weights.store(query * kTileStride + key, visible ? weight : 0.0f);
    }
  }
}
__device__ inline void store_diagonal(Shared<float> weights, const float (&sums)[kDiagonal],
                                      Shared<const int> starts) {
  const int key = thread_id() / 4, first = key - key % kRun + thread_id() % 4;
#pragma unroll
  for (int j = 0; j < kDiagonal; ++j) {
    const int query = first + 4 * j;
    const bool visible = key <= query && key >= starts.load(query);
    weights.store(query * kTileStride + key, visible ? sums[j] : 0.0f);
  }
}

template <class X>
struct WeightOperands {
  Rows<X> q, k;
  Rows<float> log_decay;  // per channel only
  int count;              // tokens
};

// weights[query][key] = <phi(q), phi(k)> decay, 0 where the query does not see the key. Uses three
// tiles, the third one for decays per channel only; `weights` may be one of them. A barrier comes
// first, another one has to follow.
template <Decay decay, class X>
__device__ void form_weights(Shared<float> weights, Shared<float> q, Shared<float> k,
                             Shared<float> gates, Shared<float> powers_or_totals,
                             Shared<const int> starts, const WeightOperands<X>& x,
                             const FeatureMap& map) {
  constexpr bool kGated = decay == Decay::kPerChannel;
  Micro c;
  clear(c);
  float diagonal[kDiagonal] = {};
#pragma unroll 1
  for (int d = 0; d < map.D; d += kTile) {
    block_barrier();
    const int depth = product_depth(map.D - d);
    if constexpr (kGated) {  // opened first: registers for loads are short
      load_tile(gates, x.log_decay.data + d, x.log_decay.stride, x.count, map.D - d);
      open_gates(gates, powers_or_totals);
    }
    load_tile(q, x.q.data + d, x.q.stride, x.count, map.D - d);
    load_tile(k, x.k.data + d, x.k.stride, x.count, map.D - d);
    block_barrier();
    if constexpr (kGated) {
      multiply_diagonal(diagonal, q, k, gates, depth);
      block_barrier();
      split_decays(q, k, gates);
      block_barrier();
      multiply_split(c, q, k, depth);
    } else {
      multiply<Stored::kPlain, Stored::kTransposed>(c, q, k, depth);
    }
  }
  block_barrier();
  store_weights<decay>(weights, c, map, powers_or_totals, starts);
  if constexpr (kGated) store_diagonal(weights, diagonal, starts);
}

}  // namespace sp::SP_GPU
