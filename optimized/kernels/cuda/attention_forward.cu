// Attention forward on tensor cores (after FlashAttention-2, arXiv:2307.08691, algorithm 1).
//
// Block     128 queries of one head, 32 per warp: with 16 the reads of K and V from shared memory
//           would take as long as the products. Later queries first, they see most under causality.
// Stream    Tiles of 32 keys, K and V, double-buffered.
// Softmax   Online. Scaled scores are rounded before the row maximum is taken from them: the largest
//           weight is 2^0 = 1 exactly, and the log-sum-exp of a lone key is its score.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/attention_launch.cuh"
#include "optimized/kernels/cuda/attention_mma.hpp"

namespace sp::SP_GPU {
namespace {

using namespace mma;

constexpr int kBlocks = 2;  // of 16 rows, per warp
constexpr int kQueries = kWarps * 16 * kBlocks;

template <class T>
struct ForwardArguments {
  Operand<T> q, k, v;
  TokenTable q_tokens, k_tokens;
  Mask mask;
  float scale = 1;
  int group = 1;  // query heads of a key head
  Result<float> out;
  Result<T> rounded_out;  // one of the two is null
  View<float> lse;
};

// Byte offsets in shared memory.
template <class T, int kHeadSize>
struct ForwardMemory {
  static constexpr int kK = Tile<T, kHeadSize>::bytes(kQueries);
  static constexpr int kV = kK + TileStages<T, kHeadSize>::kBytes;
  static constexpr int kQueryMarks = kV + TileStages<T, kHeadSize>::kBytes;
  static constexpr int kKeyMarks = kQueryMarks + kQueries * kMarkBytes;
  static constexpr int kBytes = kKeyMarks + kStages * kStreamed * kMarkBytes;
};

// What a lane knows of the softmax of its rows.
struct RowState {
  float largest = -kInfinity;
  float sum = 0;  // of exp(score - largest) over this lane's columns
};

// Scores become weights exp(score - largest); what `out` holds is rescaled to the new maximum.
template <int kOut>
__device__ void update_softmax(Fragments<kBlocks, kColumns>& scores, Fragments<kBlocks, kOut>& out,
                               RowState (&rows)[kBlocks][2]) {
  float correction[kBlocks][2];
  bool rescale = false;
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      RowState& row = rows[m][half];
      float largest = row.largest;
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        largest = fmaxf(largest, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
      }
      largest = warp_max<4>(largest);
      // A row that has seen nothing has no finite maximum to shift by: its weights are all 0.
      const float shift = largest == -kInfinity ? 0 : largest;
      correction[m][half] = exp2_approximate((row.largest - shift) * kLog2E);
      rescale = rescale || row.largest != largest;
      row.largest = largest;
      row.sum *= correction[m][half];
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          float& score = scores[m][n][i];
          score = exp2_approximate((score - shift) * kLog2E);
          row.sum += score;
        }
      }
    }
  }
  if (!warp_any(rescale)) return;  // the rule after the first hundreds of keys
  for_each_element<kBlocks, kOut>(
      [&](int m, int n, int i) { out[m][n][i] *= correction[m][i / 2]; });
}

template <int kOut, class T>
__device__ void store_rows(const Fragments<kBlocks, kOut>& out, const RowState (&rows)[kBlocks][2],
                           int first, int b, int h, const ForwardArguments<T>& a) {
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = warp_sum<4>(rows[m][half].sum);
      const float inverse = sum == 0 ? 0 : 1 / sum;
      const int i = first + fragment_row(m, half);
      if (i >= a.q.rows) continue;
      if (lane_id() % 4 == 0) {
        const float lse = sum == 0 ? -kInfinity : rows[m][half].largest + logf(sum);
        a.lse.data.store(a.lse.offset(i, b, h), lse);
      }
#pragma unroll
      for (int n = 0; n < kOut; ++n) {
        const int e = 8 * n + fragment_column();
        const float x = out[m][n][2 * half] * inverse, y = out[m][n][2 * half + 1] * inverse;
        if (a.out.view.data) {
          a.out.store(i, b, h, e, x, y);
        } else {
          a.rounded_out.store(i, b, h, e, x, y);
        }
      }
    }
  }
}

template <class T, int kHeadSize>
__global__ void __launch_bounds__(kThreads, kHeadSize == 64 ? 3 : 2)
    attention_forward(ForwardArguments<T> a) {
  using Memory = ForwardMemory<T, kHeadSize>;
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kQueries;
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const int row = warp_id() * 16 * kBlocks;  // of the tile, first of this warp

  const Tile<T, kHeadSize> q(0);
  const TileStages<T, kHeadSize> k(Memory::kK), v(Memory::kV);
  const Marks query_marks(Memory::kQueryMarks), key_marks(Memory::kKeyMarks);

  Fragments<kBlocks, kHeadSize / 8> out;
  clear<kBlocks, kHeadSize / 8>(out);
  RowState rows[kBlocks][2];
  TileWalk<Side::kQueries, kQueries> walk(a.mask, a.q_tokens, first, a.k_tokens);
  if (walk.next()) {
    q.template start_copy<kQueries>(a.q, b, h, first);
    query_marks.store<kQueries>(0, load_mark<kQueries>(a.mask, a.q_tokens, b, first));
    stream_tiles(
        walk, [&] { return walk.next(); },
        [&](int stage) {
          k.at(stage).template start_copy<kStreamed>(a.k, b, h / a.group, walk.first_token());
          v.at(stage).template start_copy<kStreamed>(a.v, b, h / a.group, walk.first_token());
          async_commit();
          return load_mark<kStreamed>(a.mask, a.k_tokens, b, walk.first_token());
        },
        [&](int stage, int2 mark) { key_marks.store<kStreamed>(stage * kStreamed, mark); },
        [&](int stage, bool partial) {
          Fragments<kBlocks, kColumns> scores;
          multiply_transposed<kBlocks>(scores, q, row, k.at(stage));
          scale<kBlocks>(scores, a.scale);
          if (partial) {
            hide<Side::kQueries, kBlocks>(scores, query_marks.at(row),
                                          key_marks.at(stage * kStreamed), a.mask);
          }
          update_softmax(scores, out, rows);
          multiply_accumulate<kBlocks>(out, scores, v.at(stage));
        });
  }
  store_rows(out, rows, first + row, b, h, a);
}

template <class T, int kHeadSize>
void launch_forward(const Gpu& gpu, TokenTables& tables, const AttentionBlock& block,
                    const Partial& result) {
  const bool rounded = result.out.dtype() != DType::kF32;
  const ForwardArguments<T> a{.q = operand<T>(block.q),
                              .k = operand<T>(block.k),
                              .v = operand<T>(block.v),
                              .q_tokens = tables.of(block.q_tokens),
                              .k_tokens = tables.of(block.k_tokens),
                              .mask = Mask(block.mask),
                              .scale = static_cast<float>(block.scale),
                              .group = group_of(block),
                              .out = rounded ? Result<float>() : Result<float>(result.out),
                              .rounded_out = rounded ? Result<T>(result.out) : Result<T>(),
                              .lse = view<float>(result.lse)};
  launch(gpu, "attention_forward", attention_forward<T, kHeadSize>,
         Launch{grid_of(block.q, kQueries), kThreads, ForwardMemory<T, kHeadSize>::kBytes}, a);
}

}  // namespace

bool attention_mma_serves(const AttentionBlock& block) {
  const DType dtype = block.q.dtype();
  const auto contiguous = [](const Tensor& tensor) {
    return tensor.extent(3) <= 1 || tensor.stride(3) == 1;
  };
  return (dtype == DType::kBF16 || dtype == DType::kF16) && block.k.dtype() == dtype &&
         block.v.dtype() == dtype && block.q.extent(3) <= kLargestHeadSize &&
         block.v.extent(3) <= kLargestHeadSize && contiguous(block.q) && contiguous(block.k) &&
         contiguous(block.v);
}

void attention_mma_forward(const Gpu& gpu, TokenTables& tables, const AttentionBlock& block,
                           const Partial& result) {
  SP_CHECK(result.out.dtype() == DType::kF32 || result.out.dtype() == block.q.dtype(),
           "attention gives f32 or the type of q");
  SP_CHECK(result.lse.dtype() == DType::kF32, "the log-sum-exp on a GPU is f32");
  visit_kernel(block, [&]<class T, int kHeadSize>() {
    launch_forward<T, kHeadSize>(gpu, tables, block, result);
  });
}

}  // namespace sp::SP_GPU
