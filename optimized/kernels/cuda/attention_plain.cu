// Attention forward in f32: online softmax over tiles of 64 x 64 scores (FlashAttention-2,
// arXiv:2307.08691, algorithm 1).
//
// Block       64 queries of one head, against all keys they see, for up to 128 columns of the
//             values; wider values take more blocks, which repeat the scores.
// Shared      52 KiB whatever the head size: operands pass in slices of 64 columns, read again for
//             every key tile except a q of one slice.
// Rounding    As a plain loop in f32, with accurate exponentials. Scaled scores are rounded before
//             the row maximum is taken from them: the largest weight is exp(0) = 1 exactly.
// Balance     Late query tiles, which see most keys of a causal mask, start first.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/attention_plain.cuh"
#include "optimized/kernels/cuda/attention_plain.hpp"

namespace sp::SP_GPU {
namespace plain {

constexpr int kForwardSharedBytes = 3 * kTileBytes;

// What a query has met so far; a thread keeps those of its four rows.
struct Softmax {
  float largest = -kInfinity;
  float sum = 0;  // of exp(score - largest) over this thread's columns

  // Scores become weights; returns what earlier sums are to be multiplied by.
  __device__ float add(float (&row)[4]) {
    const float before = largest;
    largest = fmaxf(before, warp_max<16>(fmaxf(fmaxf(row[0], row[1]), fmaxf(row[2], row[3]))));
    // A row that has seen nothing has no finite maximum to shift by: its weights are all 0.
    const float shift = largest == -kInfinity ? 0.0f : largest;
#pragma unroll
    for (float& x : row) x = expf(x - shift);
    const float factor = before == largest ? 1.0f : expf(before - shift);
    sum = sum * factor + ((row[0] + row[1]) + (row[2] + row[3]));
    return factor;
  }
};

template <int slices>
__global__ void __launch_bounds__(kTileThreads, 2)
    forward(Block block, Operand out, View<float> lse) {
  const Shared<float> x_tile = shared_memory<float>(0);
  const Shared<float> y_tile = shared_memory<float>(kTileBytes);
  const Shared<float> weights = shared_memory<float>(2 * kTileBytes);

  const std::int64_t tiles = block.q_tokens.tiles();
  const Place place(tiles, block.key_heads * block.group, block.sequences);
  const int tile = static_cast<int>(tiles) - 1 - place.tile;
  const int first_query = tile * kTile;
  const int first_value = place.part * slices * kTile;
  const int b = place.sequence, h = place.head, g = h / block.group;

  const Strip q = block.q.strip(first_query, b, h);
  const int2 q_span = block.q_tokens.spans.load(tile);
  Softmax softmax[4];
  Micro sums[slices];
#pragma unroll
  for (Micro& sum : sums) clear(sum);
  bool held = false;
  for (int first_key = 0; first_key < block.k_tokens.count; first_key += kTile) {
    const int2 k_span = block.k_tokens.spans.load(first_key / kTile);
    const Visibility visibility = block.mask.classify(q_span, k_span);
    if (visibility == Visibility::kEmpty) continue;
    Micro s;
    inner_products(s, x_tile, y_tile, q, block.k.strip(first_key, b, g), held);
    held = true;
    mask_scores<false>(s, block, visibility, b, first_query, first_key);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float factor = softmax[i].add(s[i]);
#pragma unroll
      for (Micro& sum : sums) {
#pragma unroll
        for (float& x : sum[i]) x *= factor;
      }
    }
    store_weights(weights, s);
    const Strip v = block.v.strip(first_key, b, g);
#pragma unroll
    for (int slice = 0; slice < slices; ++slice) {
      block_barrier();
      v.load(y_tile, first_value + slice * kTile);
      block_barrier();
      multiply<Stored::kPlain, Stored::kPlain>(sums[slice], weights, y_tile, product_depth(v.rows));
    }
  }

#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float weight = warp_sum<16>(softmax[i].sum);  // 0: no key seen
    const int query = first_query + micro_row(i);
    if (place.part == 0 && micro_column<true>(0) == 0 && query < out.rows) {
      lse.data.store(lse.offset(query, b, h),
                     weight == 0 ? -kInfinity : softmax[i].largest + logf(weight));
    }
#pragma unroll
    for (Micro& sum : sums) {
#pragma unroll
      for (float& x : sum[i]) x = weight == 0 ? 0.0f : x / weight;
    }
  }
  const auto store = [&]<class T>() {
#pragma unroll
    for (int slice = 0; slice < slices; ++slice) {
      const int first = first_value + slice * kTile;
      store_micro<false>(sums[slice], out.row<T>(first_query, b, h) + first, out.row_stride,
                         out.rows - first_query, out.columns - first);
    }
  };
  switch (out.dtype) {
    case DType::kBF16:
      return store.template operator()<__nv_bfloat16>();
    case DType::kF16:
      return store.template operator()<__half>();
    default:
      return store.template operator()<float>();
  }
}

}  // namespace plain

void attention_plain_forward(const Gpu& gpu, TokenTables& tables, const AttentionBlock& block,
                             const Partial& result) {
  const plain::Block operands(tables, block);
  const plain::Operand out(result.out);
  const int slices = out.columns <= kTile ? 1 : 2;
  const std::int64_t blocks = operands.q_tokens.tiles() * block.q.extent(2) * block.q.extent(1) *
                              plain::blocks_of(out.columns, slices);
  launch(gpu, "attention_plain_forward", slices == 1 ? plain::forward<1> : plain::forward<2>,
         {dim3(static_cast<unsigned>(blocks)), kTileThreads, plain::kForwardSharedBytes}, operands,
         out, view<float>(result.lse));
}

}  // namespace sp::SP_GPU
