// Queries against one state from before the chunk: sums += scale phi(q) decay state.
//
// Blocks     One per tile of tokens, query head and sequence: the state does not change, it only
//            fades, and the decay up to a token is known without the tokens before it.
// Per channel  The sums of log decays over every tile come first; a block adds up those before it.
// Cost       2 F W flops per token and head; reads of q and of F W elements per tile, a read and a
//            write of sums.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {
namespace {

template <class X>
struct ApplyArguments {
  View<const X> q;
  View<const float> state;
  View<float> sums;
  Global<const float> totals;  // [tiles, B, H, D], per channel
  DeviceTerms terms;
  bool fades;  // else every token sees the whole state
  int n, B, H, W, group;
};

__global__ void __launch_bounds__(kTile)
    linear_tile_totals(View<const float> log_decay, Global<float> totals, int n, int D) {
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const auto h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const int count = n - first < kTile ? static_cast<int>(n - first) : kTile;
  const Rows<float> rows = rows_of(log_decay, first, b, h);
  const std::int64_t head = (static_cast<std::int64_t>(blockIdx.x) * gridDim.z + b) * gridDim.y + h;
  for (int d = thread_id(); d < D; d += kTile) {
    float total = 0;
    for (int token = 0; token < count; ++token) total += rows.load(token, d);
    totals.store(head * D + d, total);
  }
}

template <class X, Decay decay, bool mapped>
__global__ void __launch_bounds__(kTileThreads) linear_apply(ApplyArguments<X> p) {
  constexpr bool kGated = decay == Decay::kPerChannel, kPerHead = decay == Decay::kPerHead;
  const int tile = static_cast<int>(blockIdx.x), h = static_cast<int>(blockIdx.y);
  const int b = static_cast<int>(blockIdx.z), s = h / p.group;
  const std::int64_t first = static_cast<std::int64_t>(tile) * kTile;
  const int left = static_cast<int>(p.n - first), count = left < kTile ? left : kTile;
  const FeatureMap& map = p.terms.map;

  const Shared<float> x = shared_tile(0), held = shared_tile(1), gates = shared_tile(2);
  int offset = (kGated ? 3 : 2) * kTileBytes;
  const auto starts = shared_memory<int>(offset);
  offset += kStartsBytes;
  const auto factors = shared_memory<float>(offset), totals = factors;
  const auto list = shared_memory<Feature>(offset);

  int open = count;
  if (p.fades) {
    if (p.terms.documents.begin_in(b, 0, first, starts)) return;
    block_barrier();
    find_starts(starts, p.terms.documents, b, first, count);
    block_barrier();
    open = starts.load(kOpenTokens);
    if (open == 0) return;
  }
  if (kPerHead && thread_id() < kTile) {
    const double log_decay = p.terms.log_decay.data.load(p.terms.log_decay.offset(0, 0, s));
    const auto age = static_cast<double>(first + thread_id() + 1);
    factors.store(thread_id(), static_cast<float>(exp(age * log_decay)));
  }

  const Rows<X> queries = rows_of(p.q, first, b, h);
#pragma unroll 1
  for (int w = 0; w < p.W; w += kTile) {
    Micro c;
    clear(c);
#pragma unroll 1
    for (int f = 0; f < map.F; f += kTile) {
      block_barrier();
      if constexpr (mapped) {
        list_features(list, map, f);
        block_barrier();
      }
      load_features<mapped>(x, queries, count, map, f, list);
      load_tile(held, p.state.data + p.state.offset(f, b, s, w), p.state.stride[0], map.F - f,
                p.W - w);
      if constexpr (kGated) {
        const Rows<float> log_decay = rows_of(p.terms.log_decay, first, b, h);
        load_tile(gates, log_decay.data + f, log_decay.stride, count, map.D - f);
        open_gates(gates, totals);
        // What happened before the tile is a part of its first token's gate.
        if (thread_id() < kTile && f + thread_id() < map.D) {
          double before = 0;
          for (int earlier = 0; earlier < tile; ++earlier) {
            const std::int64_t head = (static_cast<std::int64_t>(earlier) * p.B + b) * p.H + h;
            before += p.totals.load(head * map.D + f + thread_id());
          }
          gates.store(thread_id(), gates.load(thread_id()) * static_cast<float>(exp(before)));
        }
        block_barrier();
        fade_until(x, gates);
      }
      block_barrier();
      multiply<Stored::kPlain, Stored::kPlain>(c, x, held, product_depth(map.F - f));
    }
    for (int i = 0; i < 4; ++i) {
      const float factor = kPerHead ? factors.load(micro_row(i)) : 1.0f;
      for (int j = 0; j < 4; ++j) c[i][j] *= p.terms.scale * factor;
    }
    store_micro<true>(c, p.sums.data + p.sums.offset(first, b, h, w), p.sums.stride[0], open,
                      p.W - w);
  }
}

void apply(const Gpu& gpu, const LinearBlock& block, const Tensor& state, const Tensor& sums,
           bool fades) {
  const std::int64_t n = block.tokens.count, B = sums.extent(1), H = sums.extent(2);
  if (n == 0 || B == 0 || H == 0) return;
  const MappedVectors q(gpu, block.terms, block.q);
  visit_linear(
      block.terms.module, block.q.dtype(), [&]<class X, class V, Decay decay, bool mapped>() {
        constexpr bool kGated = decay == Decay::kPerChannel;
        ApplyArguments<X> p{q.view<X>(),
                            view<const float>(state),
                            view<float>(sums),
                            {},
                            DeviceTerms(block, block.q.extent(3)),
                            fades,
                            static_cast<int>(n),
                            static_cast<int>(B),
                            static_cast<int>(H),
                            static_cast<int>(sums.extent(3)),
                            static_cast<int>(H / state.extent(2))};
        const dim3 grid(static_cast<unsigned>(tiles_of(n)), static_cast<unsigned>(H),
                        static_cast<unsigned>(B));
        const Scratch totals(gpu,
                             kGated ? std::int64_t{tiles_of(n)} * B * H * p.terms.map.D * 4 : 0);
        p.totals = Global<const float>(totals.as<float>());
        if (kGated) {
          launch(gpu, "linear_tile_totals", &linear_tile_totals, {grid, kTile, 0},
                 p.terms.log_decay, Global<float>(totals.as<float>()), p.n, p.terms.map.D);
        }
        launch(gpu, "linear_apply", &SP_GPU::linear_apply<X, decay, mapped>,
               {grid, kTileThreads, (kGated ? 3 : 2) * kTileBytes + kStartsBytes + kTotalsBytes},
               p);
      });
}

}  // namespace

void CudaKernels::do_linear_inter(const LinearBlock& block, const Tensor& before,
                                  const Tensor& sums) {
  apply(gpu_, block, before, sums, true);
}

void CudaKernels::do_linear_apply(const LinearBlock& block, const Tensor& state,
                                  const Tensor& sums) {
  apply(gpu_, block, state, sums, false);
}

}  // namespace sp::SP_GPU
