// Linear attention inside tiles of 64 tokens: sums = scale (weights * decay * mask) v.
//
// Blocks     One per tile, query head and sequence, all independent. Scores are formed once and meet
//            all columns of v.
// Weights    <phi(q), phi(k)> in closed form: <q, k>, 1 + s + s^2/2 or a square, by FeatureMap.
// Per channel  Decays between two tokens are split where neither factor exceeds 1. The 16 x 16
//            blocks beside the diagonal are split at the border between them, those of the lower
//            left quarter in the middle of the tile; on the diagonal decays are built up token by
//            token. One product, two splits: each warp takes its operands from either tile.
// Cost       2 * 64 (D + W) flops per token and head; reads of q, k, v and writes of sums once.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/linear_launch.hpp"

namespace sp::SP_GPU {
namespace {

template <class X, class V>
struct IntraArguments {
  View<const X> q, k;
  View<const V> v;
  View<float> sums;
  DeviceTerms terms;
  int n, E, W, group;  // query heads of a key head
};

// ---- Decays per channel ------------------------------------------------------------------------

// Turns the tiles of queries and keys into the operands of the two splits. `near` is split between
// neighbouring blocks of 16 tokens, `far` in the middle of the tile; earlier tokens hold decayed keys,
// later ones decayed queries. A thread has the 16 tokens of one block in one channel.
__device__ void split_decays(Shared<float> q, Shared<float> k, Shared<const float> gates) {
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
__device__ void multiply_split(Micro& c, Shared<const float> near, Shared<const float> far,
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

// sum[j] += the weight of the key thread / 4 for query j of its block, over a quarter of the channels.
__device__ void multiply_diagonal(float (&sum)[kRun], Shared<const float> q, Shared<const float> k,
                                  Shared<const float> gates, int depth) {
  const int token = thread_id() / 4, own = token % kRun, first = token - own;
#pragma unroll 1
  for (int d = thread_id() % 4 * 4; d < depth; d += 16) {
    float4 key = k.load_as<float4>(token * kTileStride + d);
#pragma unroll
    for (int j = 0; j < kRun; ++j) {
      const int at = (first + j) * kTileStride + d;
      const float4 query = q.load_as<float4>(at), gate = gates.load_as<float4>(at);
      if (j > own) key = {key.x * gate.x, key.y * gate.y, key.z * gate.z, key.w * gate.w};
      sum[j] += query.x * key.x;
      sum[j] += query.y * key.y;
      sum[j] += query.z * key.z;
      sum[j] += query.w * key.w;
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
__device__ void store_diagonal(Shared<float> weights, const float (&sum)[kRun],
                               Shared<const int> starts) {
  const int key = thread_id() / 4, first = key - key % kRun;
#pragma unroll
  for (int j = 0; j < kRun; ++j) {
    const float weight = warp_sum<4>(sum[j]);
    const int query = first + j;
    const bool visible = key <= query && key >= starts.load(query);
    if (thread_id() % 4 == j % 4) {
      weights.store(query * kTileStride + key, visible ? weight : 0.0f);
    }
  }
}

// Per channel two blocks share a processor's registers: for three the compiler would spill.
template <class X, class V, Decay decay>
__global__ void __launch_bounds__(kTileThreads, decay == Decay::kPerChannel ? 2 : 3)
    linear_intra(IntraArguments<X, V> p) {
  constexpr bool kGated = decay == Decay::kPerChannel;
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const auto count = static_cast<int>(p.n - first < kTile ? p.n - first : kTile);
  const Shared<float> q = shared_tile(0), k = shared_tile(1), gates = shared_tile(2);
  const Shared<float> weights = q, v = k;  // later
  const int tiles = kGated ? 3 : 2;
  const auto starts = shared_memory<int>(tiles * kTileBytes);
  const auto powers = shared_memory<float>(tiles * kTileBytes + kStartsBytes);
  const auto totals = powers;

  find_starts(starts, p.terms.documents, b, first, count);
  if (decay == Decay::kPerHead)
    form_powers(powers, p.terms.log_decay.data.load(p.terms.log_decay.offset(0, 0, h)));
  const Rows<X> queries = rows_of(p.q, first, b, h), keys = rows_of(p.k, first, b, h / p.group);
  const int D = p.terms.map.D;
  Micro c;
  clear(c);
  float diagonal[kGated ? kRun : 1] = {};
#pragma unroll 1
  for (int d = 0; d < D; d += kTile) {
    if (d > 0) block_barrier();
    load_tile(q, queries.data + d, queries.stride, count, D - d);
    load_tile(k, keys.data + d, keys.stride, count, D - d);
    const int depth = product_depth(D - d);
    if constexpr (kGated) {
      const Rows<float> log_decay = rows_of(p.terms.log_decay, first, b, h);
      load_tile(gates, log_decay.data + d, log_decay.stride, count, D - d);
      open_gates(gates, totals);
      block_barrier();
      multiply_diagonal(diagonal, q, k, gates, depth);
      block_barrier();
      split_decays(q, k, gates);
      block_barrier();
      multiply_split(c, q, k, depth);
    } else {
      block_barrier();
      multiply<Stored::kPlain, Stored::kTransposed>(c, q, k, depth);
    }
  }
  block_barrier();
  store_weights<decay>(weights, c, p.terms.map, powers, starts);
  if constexpr (kGated) store_diagonal(weights, diagonal, starts);

  const Rows<V> values = rows_of(p.v, first, b, h / p.group);
#pragma unroll 1
  for (int w = 0; w < p.W; w += kTile) {
    if (w > 0) block_barrier();
    load_values(v, values, count, p.E, p.W, w);
    block_barrier();
    clear(c);
    multiply<Stored::kPlain, Stored::kPlain>(c, weights, v, product_depth(count));
    scale(c, p.terms.scale);
    store_micro<false>(c, p.sums.data + p.sums.offset(first, b, h, w), p.sums.stride[0], count,
                       p.W - w);
  }
}

}  // namespace

void launch_intra(const Gpu& gpu, const LinearBlock& block, const MappedVectors& q,
                  const MappedVectors& k, const Tensor& sums) {
  const Tensor& v = block.v;
  visit_linear(block.terms.module, v.dtype(), [&]<class X, class V, Decay decay, bool mapped>() {
    const int tiles = decay == Decay::kPerChannel ? 3 : 2;
    const Launch shape{
        dim3(static_cast<unsigned>(tiles_of(block.tokens.count)),
             static_cast<unsigned>(sums.extent(2)), static_cast<unsigned>(sums.extent(1))),
        kTileThreads, tiles * kTileBytes + kStartsBytes + kTotalsBytes};
    const IntraArguments<X, V> arguments{
        q.view<X>(),
        k.view<X>(),
        view<const V>(v),
        view<float>(sums),
        DeviceTerms(block, block.k.extent(3)),
        static_cast<int>(block.tokens.count),
        static_cast<int>(v.extent(3)),
        static_cast<int>(sums.extent(3)),
        static_cast<int>(sums.extent(2) / std::max<std::int64_t>(v.extent(2), 1))};
    launch(gpu, "linear_intra", &linear_intra<X, V, decay>, shape, arguments);
  });
}

}  // namespace sp::SP_GPU
