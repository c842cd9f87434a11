// Linear attention between tiles: a state passes over the tokens, tile by tile.
//
// Blocks     One per 64 columns of v, state head and sequence; it has 64 x 64 elements of the state
//            in shared memory, and all features one tile after the other: each adds its share to the
//            sums, in order, by the thread that owns the element.
// Spans      Few heads would leave most of the GPU idle. Then the chunk is cut into spans: first all
//            spans form their own states in parallel, then all pass over their tokens, each from the
//            states of the spans before it. One more product of three, up to kMostSpans times the
//            blocks; how many depends on the shapes alone.
// Cost       2 * 64 * 64 flops per token and tile of the state, for queries and for keys, against
//            reads of 64 elements each of q, k, v and a read and a write of sums.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cuda/linear_launch.hpp"

namespace sp::SP_GPU {
namespace {

constexpr int kLeastSpan = 512;  // tokens: 8 tiles, so that the states before it cost little
constexpr int kMostSpans = 8;
constexpr int kEnoughBlocks = 256;

// States [F, B, SH, columns] of neighbouring spans. Per channel there may be a column behind the W of
// the state: the sum of the log decays.
struct SpanStates {
  View<float> view;
  std::int64_t span_stride = 0;

  __host__ __device__ explicit operator bool() const { return static_cast<bool>(view.data); }
  __device__ Global<float> at(int span, int f, int b, int s, int column) const {
    return view.data + span * span_stride + view.offset(f, b, s, column);
  }
};

template <class X, class V>
struct PassArguments {
  View<const X> q{}, k{};
  View<const V> v{};
  View<float> sums{};          // null: no queries
  View<const float> before{};  // null: 0
  SpanStates earlier{};        // of the spans before one, which it starts from; null: from `before`
  SpanStates after{};          // null: not wanted
  DeviceTerms terms;
  int n = 0, span_tokens = 0;
  int first_span = 0, spans = 1;  // of this launch; a span behind the last has no tokens
  int first_after = 0;            // the first span whose state is wanted
  int E = 0, W = 0;
  int feature_blocks = 1;      // blocks that share the features of a state; with queries 1
  int group = 1, per_key = 1;  // query heads of a state head, state heads of a key head
  bool total_wanted = false;   // the sum of log decays behind the state
};

// Without columns there is still the sum of log decays.
__host__ __device__ constexpr int column_tiles(int W) { return W > 0 ? tiles_of(W) : 1; }

template <class X, class V, Decay decay, bool mapped>
__global__ void __launch_bounds__(kTileThreads) linear_pass(PassArguments<X, V> p) {
  constexpr bool kGated = decay == Decay::kPerChannel, kPerHead = decay == Decay::kPerHead;
  const int w_tiles = column_tiles(p.W), w = static_cast<int>(blockIdx.x) % w_tiles * kTile;
  const int s = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z) / p.spans;
  const int span = p.first_span + static_cast<int>(blockIdx.z) % p.spans;
  const auto begin_of = [&](int index) {
    const std::int64_t begin = static_cast<std::int64_t>(index) * p.span_tokens;
    return static_cast<int>(begin < p.n ? begin : p.n);
  };
  const int begin = begin_of(span), end = begin_of(span + 1);
  const FeatureMap& map = p.terms.map;

  const Shared<float> x = shared_tile(0), v = shared_tile(1), held = shared_tile(2);
  const Shared<float> gates = shared_tile(3);
  int offset = (kGated ? 4 : 3) * kTileBytes;
  const auto starts = shared_memory<int>(offset);
  const auto flags = starts;  // before the first tile
  offset += kStartsBytes;
  const auto powers = shared_memory<float>(offset), totals = powers;
  const auto list = shared_memory<Feature>(offset);

  float head_decay = 0;
  if constexpr (kPerHead) {
    head_decay = p.terms.log_decay.data.load(p.terms.log_decay.offset(0, 0, s));
    form_powers(powers, head_decay);
  }

#pragma unroll 1
  for (int f = static_cast<int>(blockIdx.x) / w_tiles * kTile; f < map.F;
       f += p.feature_blocks * kTile) {
    const int features = map.F - f, columns = p.W - w;
    const int channel = f + thread_id();  // whose log decays this thread adds up
    const bool sums_decay = kGated && thread_id() < kTile && channel < map.F;
    double total = 0;
    Micro state;
    clear(state);
    if (p.before.data) {
      add_from(state, p.before.data + p.before.offset(f, b, s, w), p.before.stride[0], features,
               columns);
    }
    bool zero = !p.before.data;
#pragma unroll 1
    for (int u = 0; u < span && p.earlier; ++u) {
      block_barrier();
      if (p.terms.documents.begin_in(b, begin_of(u), begin_of(u + 1), flags)) {
        clear(state);
      } else if constexpr (kPerHead) {
        const float log_decay = static_cast<float>(begin_of(u + 1) - begin_of(u)) * head_decay;
        fade_state(state, [&](int) { return log_decay; });
      } else if constexpr (kGated) {
        fade_state(state, [&](int row) {
          return row < features ? p.earlier.at(u, f + row, b, s, p.W).load() : 0.0f;
        });
      }
      if (sums_decay) total += p.earlier.at(u, channel, b, s, p.W).load();
      add_from(state, p.earlier.at(u, f, b, s, w), p.earlier.view.stride[0], features, columns);
      zero = false;
    }
    if constexpr (mapped) {
      block_barrier();
      list_features(list, map, f);
    }

#pragma unroll 1
    for (int first = begin; first < end; first += kTile) {
      const int count = end - first < kTile ? end - first : kTile;
      block_barrier();
      find_starts(starts, p.terms.documents, b, first, count);
      load_values(v, rows_of(p.v, first, b, s / p.per_key), count, p.E, p.W, w);
      if constexpr (kGated) {
        const Rows<float> log_decay = rows_of(p.terms.log_decay, first, b, s);
        load_tile(gates, log_decay.data + f, log_decay.stride, count, features);
        open_gates(gates, totals);
      }
      if (p.sums.data) store_to_tile(held, state);
      block_barrier();
      const int last_start = starts.load(kLastStart), open = starts.load(kOpenTokens);

      const bool asked = p.sums.data && !zero && open > 0;
#pragma unroll 1
      for (int h = s * p.group; asked && h < (s + 1) * p.group; ++h) {
        load_features<mapped>(x, rows_of(p.q, first, b, h), count, map, f, list);
        block_barrier();
        if constexpr (kGated) {
          fade_until(x, gates);
          block_barrier();
        }
        Micro c;
        clear(c);
        multiply<Stored::kPlain, Stored::kPlain>(c, x, held, product_depth(features));
        for (int i = 0; i < 4; ++i) {
          const float factor = kPerHead ? powers.load(micro_row(i) + 1) : 1.0f;
          for (int j = 0; j < 4; ++j) c[i][j] *= p.terms.scale * factor;
        }
        store_micro<true>(c, p.sums.data + p.sums.offset(first, b, h, w), p.sums.stride[0], open,
                          columns);
        block_barrier();
      }

      load_features<mapped>(x, rows_of(p.k, first, b, s / p.per_key), count, map, f, list);
      if (kGated || kPerHead || last_start > 0) {
        block_barrier();
        if constexpr (kGated) {
          fade_after(x, gates, last_start);
        } else {
          fade_rows<kPerHead>(x, powers, count - 1, last_start);
        }
      }
      block_barrier();
      if (last_start >= 0) {
        clear(state);
      } else if constexpr (kPerHead) {
        const float log_decay = static_cast<float>(count) * head_decay;
        fade_state(state, [&](int) { return log_decay; });
      } else if constexpr (kGated) {
        fade_state(state, [&](int row) { return total_of(totals, row); });
      }
      if (sums_decay) total += total_of(totals, thread_id());
      multiply<Stored::kTransposed, Stored::kPlain>(state, x, v, product_depth(count));
      zero = false;
    }

    if (!p.after || span < p.first_after) continue;
    const int index = span - p.first_after;
    store_micro<false>(state, p.after.at(index, f, b, s, w), p.after.view.stride[0], features,
                       columns);
    if (sums_decay && p.total_wanted && w == 0) {
      p.after.at(index, channel, b, s, p.W).store(0, static_cast<float>(total));
    }
  }
}

// ---- Host side ---------------------------------------------------------------------------------

template <class X, class V, Decay decay, bool mapped>
void enqueue(const Gpu& gpu, const char* name, const PassArguments<X, V>& p, std::int64_t SH,
             std::int64_t B) {
  constexpr int kTiles = decay == Decay::kPerChannel ? 4 : 3;
  constexpr int kTable = kTotalsBytes;  // or powers, or features: one of them
  static_assert(kTable >= kPowersBytes && kTable >= kTile * static_cast<int>(sizeof(Feature)));
  const Launch shape{dim3(static_cast<unsigned>(column_tiles(p.W) * p.feature_blocks),
                          static_cast<unsigned>(SH), static_cast<unsigned>(B * p.spans)),
                     kTileThreads, kTiles * kTileBytes + kStartsBytes + kTable};
  launch(gpu, name, &linear_pass<X, V, decay, mapped>, shape, p);
}

// A function of the shapes alone, so that results do not depend on the GPU.
int spans_of(std::int64_t n, std::int64_t blocks) {
  const std::int64_t most = std::min<std::int64_t>(kMostSpans, n / kLeastSpan);
  return static_cast<int>(std::clamp<std::int64_t>(
      kEnoughBlocks / std::max<std::int64_t>(blocks, 1), 1, std::max<std::int64_t>(most, 1)));
}

}  // namespace

void launch_pass(const Gpu& gpu, const LinearBlock& block, const MappedVectors* q,
                 const MappedVectors& k, const Tensor& before, const Tensor& sums,
                 const Tensor& after) {
  if (!sums.defined() && !after.defined()) return;
  const LinearTerms& terms = block.terms;
  const std::int64_t n = block.tokens.count, B = block.k.extent(1), G = block.k.extent(2);
  const std::int64_t SH = decay_of(terms.module) == Decay::kNone ? G : terms.log_decay.extent(2);
  const std::int64_t W = block.v.extent(3) + (is_normalised(terms.module) ? 1 : 0);
  visit_linear(terms.module, block.v.dtype(), [&]<class X, class V, Decay decay, bool mapped>() {
    PassArguments<X, V> p{.k = k.view<X>(),
                          .v = view<const V>(block.v),
                          .before = view<const float>(before),
                          .terms = DeviceTerms(block, block.k.extent(3)),
                          .n = static_cast<int>(n),
                          .E = static_cast<int>(block.v.extent(3)),
                          .W = static_cast<int>(W)};
    if (SH == 0 || B == 0) return;
    p.per_key = static_cast<int>(SH / G);
    const int feature_blocks = tiles_of(p.terms.map.F);
    const std::int64_t blocks = tiles_of(W) * SH * B * (sums.defined() ? 1 : feature_blocks);
    const int spans = spans_of(n, blocks);
    p.span_tokens = tiles_of((n + spans - 1) / spans) * kTile;

    // The states of all spans but, with queries, the last one's.
    const int columns = p.W + (decay == Decay::kPerChannel ? 1 : 0);
    const std::int64_t span_stride = p.terms.map.F * B * SH * columns;
    const Scratch scratch(gpu, spans > 1 ? spans * span_stride * 4 : 0);
    if (spans > 1) {
      SpanStates states{{}, span_stride};
      states.view.data = Global<float>(scratch.as<float>());
      states.view.stride[3] = 1;
      states.view.stride[2] = columns;
      states.view.stride[1] = columns * SH;
      states.view.stride[0] = columns * SH * B;
      PassArguments<X, V> local = p;
      local.before = {};
      local.after = states;
      local.spans = sums.defined() ? spans - 1 : spans;
      local.feature_blocks = feature_blocks;
      local.total_wanted = decay == Decay::kPerChannel;
      enqueue<X, V, decay, mapped>(gpu, "linear_span_states", local, SH, B);
      p.earlier = states;
    }
    p.after.view = view<float>(after);
    p.total_wanted = after.defined() && after.extent(3) > W;
    if (sums.defined()) {
      p.q = q->view<X>();
      p.sums = view<float>(sums);
      p.group = static_cast<int>(sums.extent(2) / SH);
      p.spans = spans;
      p.first_after = spans - 1;
      p.feature_blocks = 1;
      enqueue<X, V, decay, mapped>(gpu, "linear_pass", p, SH, B);
    } else {  // of several spans only their sum is left, formed by one without tokens
      p.first_span = p.first_after = spans > 1 ? spans : 0;
      p.spans = 1;
      p.feature_blocks = feature_blocks;
      enqueue<X, V, decay, mapped>(gpu, "linear_state", p, SH, B);
    }
  });
}

}  // namespace sp::SP_GPU
