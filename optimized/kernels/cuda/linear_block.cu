// The left product of linear attention: every query tile against every key tile that it sees.
//
// Blocks     One per 64 queries, query head and sequence. Scores meet 128 columns of v at a time,
//            whose sums stay in registers while the keys pass.
// Decay      exp(log_decay |i - j|) of every pair, from the positions: any layout of tokens.
// Cost       2 * 64 (D + E) flops per query and key tile, against reads of 64 (D + E) elements.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/linear_documents.hpp"
#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {
namespace {

constexpr int kWideTiles = 2;  // of columns of v

template <class T>
struct LeftArguments {
  View<const T> q, k, v;
  View<float> sums;
  View<const float> log_decay;  // [1, 1, H, 1], null: none
  TokenTable queries, keys;
  Mask mask;
  float scale;
  int D, E, group;
};

__device__ int position_of(const TokenTable& tokens, std::int64_t i) {
  return i < tokens.count ? tokens.positions.load(i) : -1;
}

// Scores become weights: decayed, and 0 where the query does not see the key.
__device__ void store_weights(Shared<float> weights, const Micro& c, const Mask& mask,
                              Visibility visibility, float log_decay, int b, const int (&query)[4],
                              const int (&key)[4]) {
  int key_segment[4];
  const bool partial = visibility == Visibility::kPartial;
  for (int j = 0; j < 4; ++j) {
    key_segment[j] = partial && key[j] >= 0 ? mask.segment(b, key[j]) : 0;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int segment = partial && query[i] >= 0 ? mask.segment(b, query[i]) : 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      bool visible = query[i] >= 0 && key[j] >= 0;
      if (partial) {
        visible = visible && mask.band_sees(query[i], key[j]) && segment == key_segment[j];
      }
      float weight = c[i][j];
      if (log_decay != 0) weight *= expf(log_decay * static_cast<float>(abs(query[i] - key[j])));
      weights.store(micro_row(i) * kTileStride + micro_column<true>(j), visible ? weight : 0.0f);
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kTileThreads) linear_block(LeftArguments<T> p) {
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const std::int64_t first_query = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const Shared<float> q = shared_tile(0), k = shared_tile(1), v = k, weights = shared_tile(2);
  const float log_decay = p.log_decay.data ? p.log_decay.data.load(p.log_decay.offset(0, 0, h)) : 0;
  const Rows<T> queries = rows_of(p.q, first_query, b, h);
  const std::int64_t rows = p.queries.count - first_query;
  const int2 query_span = p.queries.spans.load(blockIdx.x);
  int query[4];
  for (int i = 0; i < 4; ++i) query[i] = position_of(p.queries, first_query + micro_row(i));

#pragma unroll 1
  for (int w = 0; w < p.E; w += kWideTiles * kTile) {
    Micro sums[kWideTiles];
    for (int wide = 0; wide < kWideTiles; ++wide) clear(sums[wide]);
    bool loaded = false;  // q is there: its channels are one tile
#pragma unroll 1
    for (std::int64_t first = 0; first < p.keys.count; first += kTile) {
      const Visibility visibility = p.mask.classify(query_span, p.keys.spans.load(first / kTile));
      if (visibility == Visibility::kEmpty) continue;
      const std::int64_t count = p.keys.count - first;
      const Rows<T> keys = rows_of(p.k, first, b, h / p.group);
      Micro c;
      clear(c);
#pragma unroll 1
      for (int d = 0; d < p.D; d += kTile) {
        block_barrier();
        if (!loaded) load_tile(q, queries.data + d, queries.stride, rows, p.D - d);
        loaded = p.D <= kTile;
        load_tile(k, keys.data + d, keys.stride, count, p.D - d);
        block_barrier();
        multiply<Stored::kPlain, Stored::kTransposed>(c, q, k, product_depth(p.D - d));
      }
      int key[4];
      for (int j = 0; j < 4; ++j) key[j] = position_of(p.keys, first + micro_column<true>(j));
      store_weights(weights, c, p.mask, visibility, log_decay, b, query, key);
      const Rows<T> values = rows_of(p.v, first, b, h / p.group);
#pragma unroll
      for (int wide = 0; wide < kWideTiles; ++wide) {
        const int column = w + wide * kTile;
        if (column >= p.E) continue;
        block_barrier();
        load_tile(v, values.data + column, values.stride, count, p.E - column);
        block_barrier();
        multiply<Stored::kPlain, Stored::kPlain>(sums[wide], weights, v, product_depth(count));
      }
    }
#pragma unroll
    for (int wide = 0; wide < kWideTiles; ++wide) {
      const int column = w + wide * kTile;
      scale(sums[wide], p.scale);
      store_micro<true>(sums[wide], p.sums.data + p.sums.offset(first_query, b, h, column),
                        p.sums.stride[0], rows, p.E - column);
    }
  }
}

}  // namespace

void CudaKernels::do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                                  const Tensor& sums) {
  if (sums.elements() == 0 || block.k.elements() == 0) return;
  const DocumentMask documents(gpu_, block.mask, terms);
  const bool decays = decay_of(terms.module) == Decay::kPerHead;
  visit_storage(block.q.dtype(), [&]<class T>() {
    const LeftArguments<T> arguments{view<const T>(block.q),
                                     view<const T>(block.k),
                                     view<const T>(block.v),
                                     view<float>(sums),
                                     view<const float>(decays ? terms.log_decay : Tensor()),
                                     tables_.of(block.q_tokens),
                                     tables_.of(block.k_tokens),
                                     documents.mask(),
                                     static_cast<float>(block.scale),
                                     static_cast<int>(block.q.extent(3)),
                                     static_cast<int>(block.v.extent(3)),
                                     static_cast<int>(block.q.extent(2) / block.k.extent(2))};
    launch(gpu_, "linear_block", &SP_GPU::linear_block<T>,
           {dim3(static_cast<unsigned>(tiles_of(sums.extent(0))),
                 static_cast<unsigned>(sums.extent(2)), static_cast<unsigned>(sums.extent(1))),
            kTileThreads, 3 * kTileBytes},
           arguments);
  });
}

}  // namespace sp::SP_GPU
