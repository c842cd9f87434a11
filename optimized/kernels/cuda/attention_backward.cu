// Attention backward on tensor cores: probabilities recomputed from the log-sum-exp, in two kernels.
//
// Keys      K and V of a key head stay, Q and d_out of all its query heads stream past:
//           sT = K QT, dpT = V d_outT, dV += pT d_out, dK += dsT Q.
// Queries   Q and d_out stay, K and V stream past: s = Q KT, dp = d_out VT, dQ += ds K.
// Cost      7 matrix products instead of the 5 of one kernel. In exchange every gradient has one
//           owner: no atomic additions, one order of sums, the same bits in every run. And p and ds
//           go from accumulators to operands inside registers.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/attention_launch.cuh"
#include "optimized/kernels/cuda/attention_mma.hpp"

namespace sp::SP_GPU {
namespace {

using namespace mma;

// Of 16 rows, per warp: two accumulators of two blocks of 128 columns would not fit the registers.
template <int kHeadSize>
constexpr int kBlocks = kHeadSize == 64 ? 2 : 1;
template <int kHeadSize>
constexpr int kRows = kWarps * 16 * kBlocks<kHeadSize>;

template <class T>
struct BackwardArguments {
  Operand<T> q, k, v, d_out;
  TokenTable q_tokens, k_tokens;
  Mask mask;
  float scale = 1;
  int group = 1;  // query heads of a key head
  View<const float> lse, delta;
  Result<float> d_q, d_k, d_v;
};

struct Statistics {
  float lse, delta;
};

// Byte offsets in shared memory: two operands that stay, two that stream, marks and statistics.
template <class T, int kHeadSize>
struct BackwardMemory {
  static constexpr int kTile = Tile<T, kHeadSize>::bytes(kRows<kHeadSize>);
  static constexpr int kStream = TileStages<T, kHeadSize>::kBytes;
  static constexpr int kRowMarks = 2 * kTile + 2 * kStream;
  static constexpr int kStreamMarks = kRowMarks + kRows<kHeadSize> * kMarkBytes;
  static constexpr int kStatistics = kStreamMarks + kStages * kStreamed * kMarkBytes;
  static constexpr int kBytes =
      kStatistics + kStages * kStreamed * static_cast<int>(sizeof(Statistics));
};

// Of query i. Queries that see no key anywhere, and those beyond the end, get +inf as log-sum-exp:
// all their probabilities are 0.
template <class T>
__device__ Statistics load_statistics(const BackwardArguments<T>& a, int i, int b, int h) {
  if (i >= a.q.rows) return {kInfinity, 0};
  const float lse = a.lse.data.load(a.lse.offset(i, b, h));
  return {lse == -kInfinity ? kInfinity : lse, a.delta.data.load(a.delta.offset(i, b, h))};
}

__device__ inline float probability(float score, float lse) {
  return exp2_approximate((score - lse) * kLog2E);
}

template <class T, int kHeadSize>
__global__ void __launch_bounds__(kThreads, 2) attention_backward_keys(BackwardArguments<T> a) {
  using Memory = BackwardMemory<T, kHeadSize>;
  constexpr int kM = kBlocks<kHeadSize>, kKeys = kRows<kHeadSize>;
  const int first = static_cast<int>(blockIdx.x) * kKeys;
  const int g = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const int row = warp_id() * 16 * kM;  // of the tile, first of this warp

  const Tile<T, kHeadSize> k(0), v(Memory::kTile);
  const TileStages<T, kHeadSize> q(2 * Memory::kTile), d_out(2 * Memory::kTile + Memory::kStream);
  const Marks key_marks(Memory::kRowMarks), query_marks(Memory::kStreamMarks);
  const Shared<float> lse = shared_memory<float>(Memory::kStatistics);  // of kStages tiles
  const Shared<float> delta = lse + kStages * kStreamed;

  Fragments<kM, kHeadSize / 8> d_k, d_v;
  clear<kM, kHeadSize / 8>(d_k);
  clear<kM, kHeadSize / 8>(d_v);
  TileWalk<Side::kKeys, kKeys> walk(a.mask, a.k_tokens, first, a.q_tokens);
  int h = g * a.group;
  const auto next = [&] {
    while (!walk.next()) {
      if (++h % a.group == 0) return false;  // that was the last head of g
      walk.restart();
    }
    return true;
  };
  if (!next()) return;

  k.template start_copy<kKeys>(a.k, b, g, first);
  v.template start_copy<kKeys>(a.v, b, g, first);
  key_marks.store<kKeys>(0, load_mark<kKeys>(a.mask, a.k_tokens, b, first));
  struct Registers {
    int2 mark;
    Statistics statistics;
  };
  stream_tiles(
      walk, next,
      [&](int stage) {
        const int i = walk.first_token();
        q.at(stage).template start_copy<kStreamed>(a.q, b, h, i);
        d_out.at(stage).template start_copy<kStreamed>(a.d_out, b, h, i);
        async_commit();
        Registers registers{load_mark<kStreamed>(a.mask, a.q_tokens, b, i), {}};
        if (thread_id() < kStreamed) {
          registers.statistics = load_statistics(a, i + thread_id(), b, h);
        }
        return registers;
      },
      [&](int stage, const Registers& registers) {
        query_marks.store<kStreamed>(stage * kStreamed, registers.mark);
        if (thread_id() < kStreamed) {
          lse.store(stage * kStreamed + thread_id(), registers.statistics.lse);
          delta.store(stage * kStreamed + thread_id(), registers.statistics.delta);
        }
      },
      [&](int stage, bool partial) {
        Fragments<kM, kColumns> p, ds;  // transposed
        multiply_transposed<kM>(p, k, row, q.at(stage));
        scale<kM>(p, a.scale);
        if (partial) {
          hide<Side::kKeys, kM>(p, key_marks.at(row), query_marks.at(stage * kStreamed), a.mask);
        }
        for_each_element<kM, kColumns>([&](int m, int n, int i) {
          const float2 two = lse.load_as<float2>(stage * kStreamed + 8 * n + fragment_column());
          p[m][n][i] = probability(p[m][n][i], i % 2 == 0 ? two.x : two.y);
        });
        multiply_accumulate<kM>(d_v, p, d_out.at(stage));
        multiply_transposed<kM>(ds, v, row, d_out.at(stage));
        for_each_element<kM, kColumns>([&](int m, int n, int i) {
          const float2 two = delta.load_as<float2>(stage * kStreamed + 8 * n + fragment_column());
          ds[m][n][i] = p[m][n][i] * (ds[m][n][i] - (i % 2 == 0 ? two.x : two.y));
        });
        multiply_accumulate<kM>(d_k, ds, q.at(stage));
      });
  add_rows<kM, kHeadSize / 8>(a.d_k, a.k.rows, first + row, b, g, d_k, a.scale);
  add_rows<kM, kHeadSize / 8>(a.d_v, a.k.rows, first + row, b, g, d_v, 1);
}

template <class T, int kHeadSize>
__global__ void __launch_bounds__(kThreads, 2) attention_backward_queries(BackwardArguments<T> a) {
  using Memory = BackwardMemory<T, kHeadSize>;
  constexpr int kM = kBlocks<kHeadSize>, kQueries = kRows<kHeadSize>;
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kQueries;
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const int row = warp_id() * 16 * kM;  // of the tile, first of this warp

  const Tile<T, kHeadSize> q(0), d_out(Memory::kTile);
  const TileStages<T, kHeadSize> k(2 * Memory::kTile), v(2 * Memory::kTile + Memory::kStream);
  const Marks query_marks(Memory::kRowMarks), key_marks(Memory::kStreamMarks);

  Fragments<kM, kHeadSize / 8> d_q;
  clear<kM, kHeadSize / 8>(d_q);
  TileWalk<Side::kQueries, kQueries> walk(a.mask, a.q_tokens, first, a.k_tokens);
  if (!walk.next()) return;

  q.template start_copy<kQueries>(a.q, b, h, first);
  d_out.template start_copy<kQueries>(a.d_out, b, h, first);
  query_marks.store<kQueries>(0, load_mark<kQueries>(a.mask, a.q_tokens, b, first));
  Statistics statistics[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      statistics[m][half] = load_statistics(a, first + row + fragment_row(m, half), b, h);
    }
  }
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
        Fragments<kM, kColumns> p, ds;
        multiply_transposed<kM>(p, q, row, k.at(stage));
        scale<kM>(p, a.scale);
        if (partial) {
          hide<Side::kQueries, kM>(p, query_marks.at(row), key_marks.at(stage * kStreamed), a.mask);
        }
        for_each_element<kM, kColumns>([&](int m, int n, int i) {
          p[m][n][i] = probability(p[m][n][i], statistics[m][i / 2].lse);
        });
        multiply_transposed<kM>(ds, d_out, row, v.at(stage));
        for_each_element<kM, kColumns>([&](int m, int n, int i) {
          ds[m][n][i] = p[m][n][i] * (ds[m][n][i] - statistics[m][i / 2].delta);
        });
        multiply_accumulate<kM>(d_q, ds, k.at(stage));
      });
  add_rows<kM, kHeadSize / 8>(a.d_q, a.q.rows, first + row, b, h, d_q, a.scale);
}

template <class T, int kHeadSize>
void launch_backward(const Gpu& gpu, const AttentionBlock& block, const BackwardArguments<T>& a) {
  constexpr int kBytes = BackwardMemory<T, kHeadSize>::kBytes;
  launch(gpu, "attention_backward_keys", attention_backward_keys<T, kHeadSize>,
         Launch{grid_of(block.k, kRows<kHeadSize>), kThreads, kBytes}, a);
  launch(gpu, "attention_backward_queries", attention_backward_queries<T, kHeadSize>,
         Launch{grid_of(block.q, kRows<kHeadSize>), kThreads, kBytes}, a);
}

}  // namespace

void attention_mma_backward(const Gpu& gpu, TokenTables& tables, const AttentionBlock& block,
                            const Tensor& d_out, const Tensor& lse, const Tensor& delta,
                            const AttentionGradients& gradients) {
  SP_CHECK(d_out.dtype() == block.q.dtype(), "the gradient of the output has the type of q");
  for (const Tensor& tensor : {lse, delta, gradients.d_q, gradients.d_k, gradients.d_v}) {
    SP_CHECK(tensor.dtype() == DType::kF32, "statistics and gradients on a GPU are f32");
  }
  if (block.q.extent(2) == 0) return;
  visit_kernel(block, [&]<class T, int kHeadSize>() {
    const BackwardArguments<T> a{.q = operand<T>(block.q),
                                 .k = operand<T>(block.k),
                                 .v = operand<T>(block.v),
                                 .d_out = operand<T>(d_out),
                                 .q_tokens = tables.of(block.q_tokens),
                                 .k_tokens = tables.of(block.k_tokens),
                                 .mask = Mask(block.mask),
                                 .scale = static_cast<float>(block.scale),
                                 .group = group_of(block),
                                 .lse = view<const float>(lse),
                                 .delta = view<const float>(delta),
                                 .d_q = Result<float>(gradients.d_q),
                                 .d_k = Result<float>(gradients.d_k),
                                 .d_v = Result<float>(gradients.d_v)};
    launch_backward<T, kHeadSize>(gpu, block, a);
  });
}

}  // namespace sp::SP_GPU
