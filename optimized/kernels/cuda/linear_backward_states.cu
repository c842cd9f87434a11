// States from tile to tile, forward in time, and their gradients, backward in time.
//
// Blocks     One per 64 x 64 elements of a state, state head and sequence, which it holds in
//            registers; all are independent, the tiles of tokens follow one another.
// Cost       2 * 64 * 64 flops per token and block, for 2 * 64 elements read; per tile of tokens the
//            64 x 64 elements are written once.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/linear_backward.cuh"

namespace sp::SP_GPU {
namespace {

// This thread's elements of the state of head s, from row f and column w on.
struct StateCorner {
  int F, W, b, s, f, w;

  __device__ void load(Micro& c, const View<float>& from) const {
    for_each([&](int i, int j, int row, int column) {
      c[i][j] = from.data.load(from.offset(row, b, s, column));
    });
  }
  __device__ void store(const Micro& c, const View<float>& to) const {
    for_each([&](int i, int j, int row, int column) {
      to.data.store(to.offset(row, b, s, column), c[i][j]);
    });
  }

 private:
  template <class Visit>
  __device__ void for_each(Visit visit) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int row = f + micro_row(i), column = w + micro_column<false>(j);
        if (row < F && column < W) visit(i, j, row, column);
      }
    }
  }
};

template <bool kQueries, class X, class V, class Y, Decay decay, bool mapped>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    pass_over_tiles(BackwardArguments<X, V, Y> p, StatePass pass) {
  constexpr bool kGated = decay == Decay::kPerChannel;
  const int f = static_cast<int>(blockIdx.x) * kTile, w = static_cast<int>(blockIdx.y) * kTile;
  const int s = static_cast<int>(blockIdx.z) % p.SH, b = static_cast<int>(blockIdx.z) / p.SH;
  const Shared<float> x = shared_tile(0), y = shared_tile(1), gates = shared_tile(2);
  const SmallTables tables{(kGated ? 3 : 2) * kTileBytes};
  const FeatureMap& map = p.terms.map;
  const StateCorner corner{map.F, p.W, b, s, f, w};
  const int heads = kQueries ? p.H / p.SH : 1;
  float log_decay = 0;
  if constexpr (mapped) list_features(tables.features(), map, f);
  if constexpr (decay == Decay::kPerHead) {
    log_decay = p.terms.log_decay.data.load(p.terms.log_decay.offset(0, 0, s));
    form_powers(tables.powers(), log_decay);
  }

  Micro c;
  clear(c);
  if (pass.initial.data) corner.load(c, pass.initial);
#pragma unroll 1
  for (int step = 0; step < pass.span.count; ++step) {
    const int index = kQueries ? pass.span.count - 1 - step : step;
    const int first = (pass.span.first + index) * kTile;
    const int count = min(p.n - first, kTile);
    if (pass.states.view.data) {
      const View<float>& to = pass.states.view;
      store_micro<false>(c, to.data + (index * pass.states.tile_stride + to.offset(f, b, s, w)),
                         to.stride[0], map.F - f, p.W - w);
    }
    block_barrier();  // the tile before is done with
    find_starts(tables.starts(), p.terms.documents, b, first, count);
    if constexpr (kGated) {
      const Rows<float> decays = rows_of(p.terms.log_decay, first, b, s);
      load_tile(gates, decays.data + f, decays.stride, count, map.D - f);
      open_gates(gates, tables.totals());
    }
    block_barrier();
    if (tables.starts().load(kTile) >= 0) {
      clear(c);
    } else if constexpr (kGated) {
      fade_state(c, [&](int row) { return total_of(tables.totals(), row); });
    } else if constexpr (decay == Decay::kPerHead) {
      fade_state(c, [&](int) { return static_cast<float>(count) * log_decay; });
    }
    if (!pass.adds || (kQueries && tables.starts().load(0) >= 0)) continue;

#pragma unroll 1
    for (int head = 0; head < heads; ++head) {
      if (head > 0) block_barrier();
      const int h = s * heads + head;
      if constexpr (kQueries) {
        load_features<mapped>(x, rows_of(p.q, first, b, h), count, map, f, tables.features());
        const Rows<Y> gradients = rows_of(p.d_sums, first, b, h);
        load_tile(y, gradients.data + w, gradients.stride, count, p.W - w);
      } else {
        const int g = s * p.G / p.SH;
        load_features<mapped>(x, rows_of(p.k, first, b, g), count, map, f, tables.features());
        load_values(y, rows_of(p.v, first, b, g), count, p.E, p.W, w);
      }
      block_barrier();
      scale_rows(
          y, RowFactor<!kQueries, decay>{tables.starts(), tables.powers(), count, p.terms.scale});
      if constexpr (kGated) {
        if constexpr (kQueries) {
          fade_until(x, gates);
        } else {
          fade_after(x, gates, 0);
        }
      }
      block_barrier();
      multiply<Stored::kTransposed, Stored::kPlain>(c, x, y, product_depth(count));
    }
  }
  if (pass.result.data) corner.store(c, pass.result);
}

template <bool kQueries>
void pass_states(const BackwardChunk& chunk, const StatePass& pass) {
  visit_backward(chunk, [&]<class X, class V, class Y, Decay decay, bool mapped>() {
    const int tiles = decay == Decay::kPerChannel ? 3 : 2;
    const Launch shape{
        dim3(static_cast<unsigned>(tiles_of(chunk.F)), static_cast<unsigned>(tiles_of(chunk.W)),
             static_cast<unsigned>(chunk.B * chunk.SH)),
        kTileThreads, tiles * kTileBytes + kSmallTablesBytes};
    launch(chunk.gpu, kQueries ? "linear_d_states" : "linear_states",
           &pass_over_tiles<kQueries, X, V, Y, decay, mapped>, shape, arguments_of<X, V, Y>(chunk),
           pass);
  });
}

}  // namespace

void pass_keys(const BackwardChunk& chunk, const StatePass& pass) {
  pass_states<false>(chunk, pass);
}
void pass_queries(const BackwardChunk& chunk, const StatePass& pass) {
  pass_states<true>(chunk, pass);
}

}  // namespace sp::SP_GPU
