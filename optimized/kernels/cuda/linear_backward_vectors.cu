// The gradients of queries and keys, as the feature map sees them, from the states.
//
//   d_q_j = scale J(q_j)T (S d_out_j) decay + sum over i <= j of w'_ji k_i,   w' = scale f'(q k) decay
//   d_k_i = J(k_i)T (dS v_i) decay          + sum over j >= i of w'_ji q_j         <d_out_j, v_i>
//
// Blocks     One per tile of tokens, query head (d_q) or key head (d_k) and sequence, all
//            independent; that of a key head takes its query heads one after the other.
// Maps       phi is differentiated from tiles of 64 features: each thread adds to its own channels.
// Cost       2 * 64 * (2 W + D) flops per token and 64 channels, and twice F W for the states; reads of
//            q, k, v, d_sums and the state of the tile.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/linear_backward.cuh"
#include "optimized/kernels/cuda/linear_gated_sums.cuh"

namespace sp::SP_GPU {
namespace {

// Who computes: a block's tile of tokens and its heads.
struct Place {
  int index;  // of the tile, in its span
  int b, h, g, s;
  int first, count;
};

struct Tiles {
  Shared<float> weights, a, b, more;
  SmallTables tables;
};

// a = the values of the tokens whose gradient is wanted: those of d_sums for queries, v for keys.
template <bool kKeys, class Arguments>
__device__ void load_own_values(Shared<float> a, const Arguments& p, const Place& at, int w) {
  if constexpr (kKeys) {
    load_values(a, rows_of(p.v, at.first, at.b, at.g), at.count, p.E, p.W, w);
  } else {
    const auto rows = rows_of(p.d_sums, at.first, at.b, at.h);
    load_tile(a, rows.data + w, rows.stride, at.count, p.W - w);
  }
}

// c[token][f] = the sum over w of the token's value and the state. The last barrier has passed.
template <bool kKeys, class Arguments>
__device__ void multiply_states(Micro& c, const Tiles& tiles, const Arguments& p,
                                const GradientStep& step, const Place& at, int f) {
  clear(c);
#pragma unroll 1
  for (int w = 0; w < p.W; w += kTile) {
    block_barrier();
    load_own_values<kKeys>(tiles.a, p, at, w);
    load_state(tiles.b, step.states, at.index, at.b, at.s, f, w, p.terms.map.F, p.W);
    block_barrier();
    multiply<Stored::kPlain, Stored::kTransposed>(c, tiles.a, tiles.b, product_depth(p.W - w));
  }
  block_barrier();
}

// weights[other token][own token] = w' without the decay per channel.
template <bool kKeys, Decay decay, bool mapped, class Arguments>
__device__ void form_weight_gradients(const Tiles& tiles, const Arguments& p, const Place& at) {
  const auto d_sums = rows_of(p.d_sums, at.first, at.b, at.h);
  const auto q = rows_of(p.q, at.first, at.b, at.h), k = rows_of(p.k, at.first, at.b, at.g);
  const FeatureMap& map = p.terms.map;
  Micro c, products;  // rows are queries
  clear(c);
  clear(products);
#pragma unroll 1
  for (int w = 0; w < p.W; w += kTile) {
    block_barrier();
    load_tile(tiles.a, d_sums.data + w, d_sums.stride, at.count, p.W - w);
    load_values(tiles.b, rows_of(p.v, at.first, at.b, at.g), at.count, p.E, p.W, w);
    block_barrier();
    multiply<Stored::kPlain, Stored::kTransposed>(c, tiles.a, tiles.b, product_depth(p.W - w));
  }
#pragma unroll 1
  for (int d = 0; mapped && d < map.D; d += kTile) {
    block_barrier();
    load_tile(tiles.a, q.data + d, q.stride, at.count, map.D - d);
    load_tile(tiles.b, k.data + d, k.stride, at.count, map.D - d);
    block_barrier();
    multiply<Stored::kPlain, Stored::kTransposed>(products, tiles.a, tiles.b,
                                                  product_depth(map.D - d));
  }
  const Shared<const int> starts = tiles.tables.starts();
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int key = micro_column<true>(j);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int query = micro_row(i);
      const bool visible = key <= query && key >= starts.load(query);
      float factor = p.terms.scale;
      if constexpr (mapped) factor *= map.weight_derivative(products[i][j]);
      if constexpr (decay == Decay::kPerHead) {
        factor *= tiles.tables.powers().load(visible ? query - key : 0);
      }
      c[i][j] = visible ? c[i][j] * factor : 0.0f;
      if (kKeys) tiles.weights.store(query * kTileStride + key, c[i][j]);
    }
    if (!kKeys) {
      tiles.weights.store_as(key * kTileStride + micro_row(0),
                             float4{c[0][j], c[1][j], c[2][j], c[3][j]});
    }
  }
}

// result[channel][token] += the gradient of phi in tiles.a [f][token], through the features in the
// list. A thread has every fourth channel of one token; x [channel][token] holds those from d on.
template <class X>
__device__ void differentiate_map(Shared<float> result, Shared<const float> d_phi,
                                  Shared<const float> x, Shared<const Feature> list, int features,
                                  const Rows<X>& rows, int count, int d) {
  const int token = thread_id() % kTile, share = thread_id() / kTile;
  const auto channel = [&](int c) {
    if (c < 0) return 1.0f;
    if (c >= d && c < d + kTile) return x.load((c - d) * kTileStride + token);
    return token < count ? to_float(rows.load(token, c)) : 0.0f;
  };
  const auto add = [&](int own, int other, float gradient) {
    own -= d;
    if (own < 0 || own >= kTile || own % 4 != share) return;
    const int at = own * kTileStride + token;
    result.store(at, result.load(at) + gradient * channel(other));
  };
  for (int f = 0; f < features; ++f) {
    const Feature feature = list.load(f);
    const float gradient = feature.factor * d_phi.load(f * kTileStride + token);
    add(feature.a, feature.b, gradient);
    add(feature.b, feature.a, gradient);
  }
}

// target += tile, [token][channel] from channel d on; decay_terms += or -= x times it.
template <bool kKeys, Decay decay, class X>
__device__ void add_gradients(Shared<const float> tile, const GradientStep& step, const Place& at,
                              const Rows<X>& x, int channels, int d) {
  const View<float>& to = step.target;
  const View<float>& terms = step.decay_terms;
#pragma unroll 1
  for (int token = warp_id(); token < at.count; token += kTileThreads / kWarp) {
    const int row = at.first + token;
    const Global<float> gradient = to.data + to.offset(row, at.b, kKeys ? at.g : at.h, d);
    float sum = 0;
    for (int c = lane_id(); c < channels; c += kWarp) {
      const float value = tile.load(token * kTileStride + c);
      gradient.store(c, gradient.load(c) + value);
      if constexpr (decay == Decay::kNone) continue;
      const float term = (kKeys ? -value : value) * to_float(x.load(token, d + c));
      sum += term;
      if constexpr (decay == Decay::kPerChannel) {
        const Global<float> own = terms.data + terms.offset(row, at.b, at.h, d);
        own.store(c, own.load(c) + term);
      }
    }
    if constexpr (decay == Decay::kPerHead) {
      sum = warp_sum(sum);
      const Global<float> own = terms.data + terms.offset(row, at.b, at.h);
      if (lane_id() == 0) own.store(0, own.load() + sum);
    }
  }
}

// Through a map: target += what comes from the state.
template <bool kKeys, class X, class Arguments>
__device__ void add_through_map(const Tiles& tiles, const Arguments& p, const GradientStep& step,
                                const Place& at, const Rows<X>& own) {
  const FeatureMap& map = p.terms.map;
  const Shared<float> x = tiles.weights, result = tiles.more;
  const RowFactor<kKeys, Decay::kNone> factor{tiles.tables.starts(), {}, at.count, p.terms.scale};
#pragma unroll 1
  for (int d = 0; d < map.D; d += kTile) {
    block_barrier();
    for (int i = thread_id(); i < kTile * kTile; i += kTileThreads) {
      const int token = i % kTile, channel = i / kTile, to = channel * kTileStride + token;
      const bool inside = token < at.count && d + channel < map.D;
      x.store(to, inside ? to_float(own.load(token, d + channel)) : 0.0f);
      result.store(to, 0);
    }
#pragma unroll 1
    for (int f = 0; f < map.F; f += kTile) {
      Micro c;
      multiply_states<kKeys>(c, tiles, p, step, at, f);
      list_features(tiles.tables.features(), map, f);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        tiles.a.store_as(micro_column<true>(j) * kTileStride + micro_row(0),
                         float4{c[0][j], c[1][j], c[2][j], c[3][j]});
      }
      block_barrier();
      differentiate_map(result, tiles.a, x, tiles.tables.features(), min(map.F - f, kTile), own,
                        at.count, d);
    }
    block_barrier();
    for (int i = thread_id(); i < kTile * kTile; i += kTileThreads) {
      const int token = i / kTile, channel = i % kTile;
      tiles.a.store(token * kTileStride + channel,
                    factor(token) * result.load(channel * kTileStride + token));
    }
    block_barrier();
    add_gradients<kKeys, Decay::kNone>(tiles.a, step, at, own, min(map.D - d, kTile), d);
  }
}

__device__ inline void clear_tile(Shared<float> tile) {
  for (int i = thread_id(); i < kTile * kTile; i += kTileThreads) {
    tile.store(i / kTile * kTileStride + i % kTile, 0);
  }
}

// What comes from the state, faded by its own token's decay per channel.
template <bool kKeys>
__device__ void fade(Shared<float> tile, Shared<const float> gates) {
  if constexpr (kKeys) {
    fade_after(tile, gates, 0);
  } else {
    fade_until(tile, gates);
  }
}

template <bool kKeys, class X, class V, class Y, Decay decay, bool mapped>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    vector_gradients(BackwardArguments<X, V, Y> p, GradientStep step) {
  constexpr bool kGated = decay == Decay::kPerChannel;
  const Tiles tiles{shared_tile(0),
                    shared_tile(1),
                    shared_tile(2),
                    shared_tile(3),
                    {(kGated || mapped ? 4 : 3) * kTileBytes}};
  const SmallTables& tables = tiles.tables;
  const FeatureMap& map = p.terms.map;
  const int group = p.H / p.G;
  const auto block = static_cast<int>(blockIdx.y);  // key head or query head
  Place at{static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.z), 0, 0, 0, 0, 0};
  at.first = (step.span.first + at.index) * kTile;
  at.count = min(p.n - at.first, kTile);
  at.g = kKeys ? block : block / group;
  find_starts(tables.starts(), p.terms.documents, at.b, at.first, at.count);
  block_barrier();

#pragma unroll 1
  for (int head = 0; head < (kKeys ? group : 1); ++head) {
    at.h = kKeys ? block * group + head : block;
    at.s = at.h * p.SH / p.H;
    const bool inter = step.states.view.data && (decay != Decay::kNone || head == 0);
    const Rows<X> own = rows_of(kKeys ? p.k : p.q, at.first, at.b, kKeys ? at.g : at.h);
    const Rows<X> other = rows_of(kKeys ? p.q : p.k, at.first, at.b, kKeys ? at.h : at.g);
    if constexpr (decay == Decay::kPerHead) {
      block_barrier();
      form_powers(tables.powers(),
                  p.terms.log_decay.data.load(p.terms.log_decay.offset(0, 0, at.h)));
    }
    if constexpr (mapped) {
      if (inter) add_through_map<kKeys>(tiles, p, step, at, own);
    }
    if (step.intra) {
      form_weight_gradients<kKeys, decay, mapped>(tiles, p, at);
    } else if (mapped) {
      continue;
    }
#pragma unroll 1
    for (int d = 0; d < map.D; d += kTile) {
      const bool from_state = !mapped && inter;
      Micro c;
      if (from_state) {
        multiply_states<kKeys>(c, tiles, p, step, at, d);
        const RowFactor<kKeys, decay> factor{tables.starts(), tables.powers(), at.count,
                                             p.terms.scale};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float by = factor(micro_row(i));
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            tiles.a.store(micro_row(i) * kTileStride + micro_column<true>(j), by * c[i][j]);
          }
        }
      } else {
        block_barrier();
      }
      if (step.intra) load_tile(tiles.b, other.data + d, other.stride, at.count, map.D - d);
      if constexpr (kGated) {
        const Rows<float> decays = rows_of(p.terms.log_decay, at.first, at.b, at.h);
        load_tile(tiles.more, decays.data + d, decays.stride, at.count, map.D - d);
        open_gates(tiles.more, tables.totals());
        block_barrier();
        if (from_state) {
          fade<kKeys>(tiles.a, tiles.more);
        } else {
          clear_tile(tiles.a);
        }
        block_barrier();
        if (step.intra) {
          gated_sums<kKeys>(tiles.a, tiles.weights, tiles.b, tiles.more, at.count);
        }
      } else if (step.intra) {
        block_barrier();
        clear(c);
        multiply<Stored::kTransposed, Stored::kPlain>(c, tiles.weights, tiles.b,
                                                      product_depth(at.count));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int to = micro_row(i) * kTileStride + micro_column<false>(0);
          float4 sum{c[i][0], c[i][1], c[i][2], c[i][3]};
          if (from_state) {
            const float4 held = tiles.a.load_as<float4>(to);
            sum = {held.x + sum.x, held.y + sum.y, held.z + sum.z, held.w + sum.w};
          }
          tiles.a.store_as(to, sum);
        }
      }
      block_barrier();
      add_gradients<kKeys, decay>(tiles.a, step, at, own, min(map.D - d, kTile), d);
    }
  }
}

template <bool kKeys>
void add(const BackwardChunk& chunk, const GradientStep& step) {
  visit_backward(chunk, [&]<class X, class V, class Y, Decay decay, bool mapped>() {
    const int tiles = decay == Decay::kPerChannel || mapped ? 4 : 3;
    const Launch shape{
        dim3(static_cast<unsigned>(step.span.count),
             static_cast<unsigned>(kKeys ? chunk.G : chunk.H), static_cast<unsigned>(chunk.B)),
        kTileThreads, tiles * kTileBytes + kSmallTablesBytes};
    launch(chunk.gpu, kKeys ? "linear_d_k" : "linear_d_q",
           &vector_gradients<kKeys, X, V, Y, decay, mapped>, shape, arguments_of<X, V, Y>(chunk),
           step);
  });
}

}  // namespace

void add_d_q(const BackwardChunk& chunk, const GradientStep& step) { add<false>(chunk, step); }
void add_d_k(const BackwardChunk& chunk, const GradientStep& step) { add<true>(chunk, step); }

}  // namespace sp::SP_GPU
