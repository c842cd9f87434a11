// Attention backward in f32: probabilities recomputed from the log-sum-exp, in two passes without
// atomic sums, so that every gradient is added up in one fixed order.
//
// Pass of queries  A block holds 64 queries of one head; the keys they see pass by: dq += ds k.
// Pass of keys     A block holds 64 keys of one key head; the queries that see them pass by, head
//                  after head of the group: dv += pT d_out, dk += dsT q.
// Both             p = exp(scale q kT - lse), ds = scale p (d_out vT - delta). Scores and d_out vT
//                  are formed twice: 7 products instead of 5.
// Block            Up to 128 columns of the gradients; wider heads take more blocks, which repeat
//                  the scores. 68 KiB of shared memory whatever the head size.
// Balance          Blocks with most work under a causal mask start first: late queries, early keys.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cuda/attention_plain.cuh"
#include "optimized/kernels/cuda/attention_plain.hpp"

namespace sp::SP_GPU {
namespace plain {

constexpr int kBackwardSharedBytes = 4 * kTileBytes;

struct BackwardOperands {
  Block block;
  Operand d_out;
  View<const float> lse, delta;
  Operand d_q, d_k, d_v;  // f32, added to
};

// Tiles of shared memory.
struct BackwardTiles {
  Shared<float> left;     // q or k, whichever is held
  Shared<float> right;    // d_out or v of the same tokens
  Shared<float> passing;  // a slice of one of the others
  Shared<float> weights;  // p, then ds
};

// Log-sum-exp or delta of the four queries that are this thread's rows (keys pass) or columns
// (queries pass).
template <bool keys_held>
__device__ void load_per_query(float (&values)[4], const View<const float>& from,
                               const Operand& queries, int first_query, int b, int h,
                               float missing) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int query = first_query + (keys_held ? micro_column<true>(i) : micro_row(i));
    values[i] = query < queries.rows ? from.data.load(from.offset(query, b, h)) : missing;
  }
}

// s becomes p: 0 for queries that see no key or are not there.
template <bool keys_held>
__device__ void exponentiate(Micro& s, const float (&lse)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float shift = lse[keys_held ? j : i];
      s[i][j] = shift == -kInfinity ? 0.0f : expf(s[i][j] - shift);
    }
  }
}

// p in its tile becomes ds, by the thread that stored it; exactly 0 where p is 0, whatever dp is.
template <bool keys_held>
__device__ void differentiate(Shared<float> weights, const Micro& dp, const float (&delta)[4],
                              float scale) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = weight_at(i, j);
      const float p = weights.load(at);
      const float ds = p * (dp[i][j] - delta[keys_held ? j : i]) * scale;
      weights.store(at, p == 0 ? 0.0f : ds);
    }
  }
}

// sums[slice] += weights x over the slices of x from column `first` on; the weights are in their
// tile or will be at the next barrier.
template <int slices>
__device__ void add_products(Micro (&sums)[slices], const BackwardTiles& tiles, const Strip& x,
                             int first) {
#pragma unroll
  for (int slice = 0; slice < slices; ++slice) {
    if (first + slice * kTile >= x.columns) break;
    block_barrier();
    x.load(tiles.passing, first + slice * kTile);
    block_barrier();
    multiply<Stored::kPlain, Stored::kPlain>(sums[slice], tiles.weights, tiles.passing,
                                             product_depth(x.rows));
  }
}

template <int slices>
__device__ void add_gradients(const Micro (&sums)[slices], const Operand& gradient, int row, int b,
                              int h, int first_column) {
#pragma unroll
  for (int slice = 0; slice < slices; ++slice) {
    const int column = first_column + slice * kTile;
    store_micro<true>(sums[slice], gradient.row<float>(row, b, h) + column, gradient.row_stride,
                      gradient.rows - row, gradient.columns - column);
  }
}

template <int slices, bool keys_held>
__global__ void __launch_bounds__(kTileThreads, slices == 1 ? 2 : 1) backward(BackwardOperands o) {
  const Block& block = o.block;
  BackwardTiles tiles{shared_memory<float>(0), shared_memory<float>(kTileBytes),
                      shared_memory<float>(2 * kTileBytes), shared_memory<float>(3 * kTileBytes)};
  const TokenTable& rows = keys_held ? block.k_tokens : block.q_tokens;
  const TokenTable& columns = keys_held ? block.q_tokens : block.k_tokens;
  const Place place(rows.tiles(), keys_held ? block.key_heads : block.key_heads * block.group,
                    block.sequences);
  const int tile = keys_held ? place.tile : static_cast<int>(rows.tiles()) - 1 - place.tile;
  const int first_row = tile * kTile;
  const int first_output = place.part * slices * kTile;
  const int b = place.sequence;
  const int g = keys_held ? place.head : place.head / block.group;
  const int heads = keys_held ? block.group : 1;
  const int2 row_span = rows.spans.load(tile);

  Micro d_left[slices], d_right[slices];  // of q; or of k and v
#pragma unroll
  for (int slice = 0; slice < slices; ++slice) {
    clear(d_left[slice]);
    clear(d_right[slice]);
  }
  bool held = false;
  for (int member = 0; member < heads; ++member) {
    const int h = keys_held ? g * block.group + member : place.head;
    const Strip left = keys_held ? block.k.strip(first_row, b, g) : block.q.strip(first_row, b, h);
    const Strip right = keys_held ? block.v.strip(first_row, b, g) : o.d_out.strip(first_row, b, h);
    for (int first_column = 0; first_column < columns.count; first_column += kTile) {
      const int2 column_span = columns.spans.load(first_column / kTile);
      const Visibility visibility = keys_held ? block.mask.classify(column_span, row_span)
                                              : block.mask.classify(row_span, column_span);
      if (visibility == Visibility::kEmpty) continue;
      const Strip passing_left =
          keys_held ? block.q.strip(first_column, b, h) : block.k.strip(first_column, b, g);
      const Strip passing_right =
          keys_held ? o.d_out.strip(first_column, b, h) : block.v.strip(first_column, b, g);
      const int first_query = keys_held ? first_column : first_row;

      Micro p, dp;
      float lse[4], delta[4];
      load_per_query<keys_held>(lse, o.lse, block.q, first_query, b, h, -kInfinity);
      inner_products(p, tiles.left, tiles.passing, left, passing_left, held);
      mask_scores<keys_held>(p, block, visibility, b, first_row, first_column);
      exponentiate<keys_held>(p, lse);
      store_weights(tiles.weights, p);
      if constexpr (keys_held) add_products(d_right, tiles, passing_right, first_output);
      load_per_query<keys_held>(delta, o.delta, block.q, first_query, b, h, 0);
      inner_products(dp, tiles.right, tiles.passing, right, passing_right, held);
      differentiate<keys_held>(tiles.weights, dp, delta, block.scale);
      add_products(d_left, tiles, passing_left, first_output);
      held = true;
    }
  }
  if (!held) return;
  const Operand& left_gradient = keys_held ? o.d_k : o.d_q;
  add_gradients(d_left, left_gradient, first_row, b, keys_held ? g : place.head, first_output);
  if constexpr (keys_held) add_gradients(d_right, o.d_v, first_row, b, g, first_output);
}

template <bool keys_held>
void launch_backward(const Gpu& gpu, const BackwardOperands& o, int columns) {
  const char* name = keys_held ? "attention_plain_d_kv" : "attention_plain_d_q";
  const TokenTable& rows = keys_held ? o.block.k_tokens : o.block.q_tokens;
  const std::int64_t heads = o.block.key_heads * std::int64_t{keys_held ? 1 : o.block.group};
  const int slices = columns <= kTile ? 1 : 2;
  const std::int64_t blocks = rows.tiles() * heads * o.block.sequences * blocks_of(columns, slices);
  launch(gpu, name, slices == 1 ? backward<1, keys_held> : backward<2, keys_held>,
         {dim3(static_cast<unsigned>(blocks)), kTileThreads, kBackwardSharedBytes}, o);
}

}  // namespace plain

void attention_plain_backward(const Gpu& gpu, TokenTables& tables, const AttentionBlock& block,
                              const Tensor& d_out, const Tensor& lse, const Tensor& delta,
                              const AttentionGradients& gradients) {
  const plain::BackwardOperands o{plain::Block(tables, block),   plain::Operand(d_out),
                                  view<const float>(lse),        view<const float>(delta),
                                  plain::Operand(gradients.d_q), plain::Operand(gradients.d_k),
                                  plain::Operand(gradients.d_v)};
  for (const plain::Operand* gradient : {&o.d_q, &o.d_k, &o.d_v}) {
    SP_CHECK(gradient->dtype == DType::kF32, "gradients of GPU kernels are f32");
  }
  plain::launch_backward<true>(gpu, o, std::max(o.d_k.columns, o.d_v.columns));
  plain::launch_backward<false>(gpu, o, o.d_q.columns);
}

}  // namespace sp::SP_GPU
