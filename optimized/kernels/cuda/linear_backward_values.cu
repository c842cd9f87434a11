// The gradient of values: d_v_i = phi(k_i)T dS decay + sum over j >= i of w_ji d_out_j.
//
// Blocks     One per tile of tokens, key head and sequence, all independent; it takes its query heads
//            one after the other.
// Cost       2 * 64 * (D + E) flops per token and query head, twice F E per token and state head for
//            the states; reads of q, k, d_sums and the states, d_v read and written once per head.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/linear_backward.cuh"
#include "optimized/kernels/cuda/linear_weights.cuh"

namespace sp::SP_GPU {
namespace {

template <class X, class V, class Y, Decay decay, bool mapped>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    value_gradients(BackwardArguments<X, V, Y> p, GradientStep step) {
  constexpr bool kGated = decay == Decay::kPerChannel;
  const Shared<float> weights = shared_tile(0), a = shared_tile(1), y = shared_tile(2),
                      gates = shared_tile(3);
  const SmallTables tables{(kGated ? 4 : 3) * kTileBytes};
  const FeatureMap& map = p.terms.map;
  const int group = p.H / p.G;
  const auto g = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const int first = (static_cast<int>(blockIdx.x) + step.span.first) * kTile;
  const int count = min(p.n - first, kTile);
  find_starts(tables.starts(), p.terms.documents, b, first, count);
  block_barrier();

#pragma unroll 1
  for (int h = g * group; h < (g + 1) * group; ++h) {
    const int s = h * p.SH / p.H;
    const bool inter = step.states.view.data && (decay != Decay::kNone || h == g * group);
    const auto decays = [&] {
      return kGated ? rows_of(p.terms.log_decay, first, b, h) : Rows<float>{};
    };
    if constexpr (decay == Decay::kPerHead) {
      block_barrier();
      form_powers(tables.powers(), p.terms.log_decay.data.load(p.terms.log_decay.offset(0, 0, h)));
    }
    if (step.intra) {
      form_weights<decay>(
          weights, a, y, gates, tables.powers(), tables.starts(),
          WeightOperands<X>{rows_of(p.q, first, b, h), rows_of(p.k, first, b, g), decays(), count},
          map);
    }
#pragma unroll 1
    for (int w = 0; w < p.E; w += kTile) {
      Micro c;
      clear(c);
      if (step.intra) {
        const Rows<Y> gradients = rows_of(p.d_sums, first, b, h);
        block_barrier();
        load_tile(y, gradients.data + w, gradients.stride, count, p.E - w);
        block_barrier();
        multiply<Stored::kTransposed, Stored::kPlain>(c, weights, y, product_depth(count));
        scale(c, p.terms.scale);
      }
#pragma unroll 1
      for (int f = 0; inter && f < map.F; f += kTile) {
        block_barrier();
        if constexpr (mapped) {
          list_features(tables.features(), map, f);
          block_barrier();
        }
        if constexpr (kGated) {  // before the others: registers for loads are short
          const Rows<float> rows = decays();
          load_tile(gates, rows.data + f, rows.stride, count, map.D - f);
          open_gates(gates, tables.totals());
        }
        load_features<mapped>(a, rows_of(p.k, first, b, g), count, map, f, tables.features());
        load_state(y, step.states, static_cast<int>(blockIdx.x), b, s, f, w, map.F, p.E);
        block_barrier();
        if constexpr (kGated) {
          fade_after(a, gates, tables.starts().load(kTile));
        } else {
          scale_rows(a, RowFactor<true, decay>{tables.starts(), tables.powers(), count, 1});
        }
        block_barrier();
        multiply<Stored::kPlain, Stored::kPlain>(c, a, y, product_depth(map.F - f));
      }
      const View<float>& to = step.target;
      store_micro<true>(c, to.data + to.offset(first, b, g, w), to.stride[0], count, p.E - w);
    }
  }
}

}  // namespace

void add_d_v(const BackwardChunk& chunk, const GradientStep& step) {
  visit_backward(chunk, [&]<class X, class V, class Y, Decay decay, bool mapped>() {
    const int tiles = decay == Decay::kPerChannel ? 4 : 3;
    const Launch shape{dim3(static_cast<unsigned>(step.span.count), static_cast<unsigned>(chunk.G),
                            static_cast<unsigned>(chunk.B)),
                       kTileThreads, tiles * kTileBytes + kSmallTablesBytes};
    launch(chunk.gpu, "linear_d_v", &value_gradients<X, V, Y, decay, mapped>, shape,
           arguments_of<X, V, Y>(chunk), step);
  });
}

}  // namespace sp::SP_GPU
