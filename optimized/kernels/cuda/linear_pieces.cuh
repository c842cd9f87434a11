// What the kernels of linear attention share: feature maps, decays, documents, operands.
//
// Tiles      A chunk is worked off in sub-chunks of kTile tokens, whatever LinearTerms::chunk says.
// Vectors    q and k as the maps see them: as they are, or for Rebased layer-normed, in scratch.
// Features   phi(x)_f is factor x_a x_b, or factor x_a, or 1: tiles of 64 features are formed from
//            x when they are needed and are never in global memory.
// Decays     Every factor is the product of exp(log decay) over a run of tokens, so none exceeds 1.
// Documents  A state restarts where the segment id changes, and at position 0.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>

#include "optimized/kernels/cuda/tile.cuh"
#include "optimized/kernels/cuda/views.hpp"
#include "optimized/kernels/linear.hpp"

namespace sp::SP_GPU {

__host__ __device__ constexpr int tiles_of(std::int64_t count) {
  return static_cast<int>((count + kTile - 1) / kTile);
}
__device__ inline Shared<float> shared_tile(int index) {
  return shared_memory<float>(index * kTileBytes);
}

__device__ inline void scale(Micro& c, float factor) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) c[i][j] *= factor;
  }
}

// ---- Feature maps ------------------------------------------------------------------------------

// factor x_a x_b; an index -1 stands for 1.
struct alignas(16) Feature {
  int a, b;
  float factor;
};

// The order of features is that of reference/README.md.
struct FeatureMap {
  int D = 0, F = 0;
  int squares = 0;  // features before x_0 x_0
  bool identity = true, based = false;
  float linear = 1, square = 1, mixed = 1;  // factors of x_a, x_a x_a and x_a x_b

  FeatureMap() = default;
  FeatureMap(Module module, std::int64_t channels)
      : D(static_cast<int>(channels)),
        F(static_cast<int>(features_of(module, channels))),
        identity(!is_normalised(module)),
        based(module == Module::kBased) {
    if (identity) return;
    const double root = std::sqrt(static_cast<double>(D));
    squares = based ? 1 + D : 0;
    linear = static_cast<float>(1 / std::sqrt(root));
    square = static_cast<float>((based ? std::sqrt(0.5) : 1) / root);
    mixed = static_cast<float>((based ? 1 : std::sqrt(2.0)) / root);
  }

  __device__ Feature feature(int f) const {
    if (identity) return {f, -1, 1};
    if (f < squares) return f == 0 ? Feature{-1, -1, 1} : Feature{f - 1, -1, linear};
    f -= squares;
    if (f < D) return {f, f, square};
    f -= D;  // row a has the D - 1 - a pairs (a, b), a < b, behind those of earlier rows
    const auto before = [this](int a) { return a * (2 * D - 1 - a) / 2; };
    const float odd = static_cast<float>(2 * D - 1);
    int a = static_cast<int>((odd - sqrtf(odd * odd - 8 * static_cast<float>(f))) / 2);
    while (before(a) > f) --a;
    while (before(a + 1) <= f) ++a;
    return {a, a + 1 + f - before(a), mixed};
  }

  // The weight <phi(q), phi(k)> from <q, k>, and its derivative.
  __device__ float weight(float product) const {
    if (identity) return product;
    const float s = mixed * product;  // Based: product / sqrt(D)
    return based ? 1 + s * (1 + s / 2) : square * square * product * product;
  }
  __device__ float weight_derivative(float product) const {
    if (identity) return 1;
    return based ? mixed + mixed * mixed * product : 2 * square * square * product;
  }
};

// Rows of one head: columns are neighbours.
template <class T>
struct Rows {
  Global<const T> data;
  std::int64_t stride = 0;

  __device__ T load(int row, int column) const { return data.load(row * stride + column); }
};
template <class T>
__device__ Rows<T> rows_of(const View<const T>& view, std::int64_t first, int b, int h) {
  return {view.data + view.offset(first, b, h), view.stride[0]};
}

// The features [first, first + kTile), for all tiles of tokens that follow: a table in shared memory.
// A barrier has to follow.
__device__ inline void list_features(Shared<Feature> list, const FeatureMap& map, int first) {
  if (thread_id() < kTile && first + thread_id() < map.F) {
    list.store(thread_id(), map.feature(first + thread_id()));
  }
}

// tile[token][f - first] = phi(x_token)_f, 0 beyond `count` tokens and F features. `list` is that of
// `first`; the identity needs none.
template <bool kMapped, class T>
__device__ void load_features(Shared<float> tile, const Rows<T>& x, int count,
                              const FeatureMap& map, int first, Shared<const Feature> list) {
  if constexpr (!kMapped) {
    load_tile(tile, x.data + first, x.stride, count, map.D - first);
  } else {
    for (int i = thread_id(); i < kTile * kTile; i += kTileThreads) {
      const int token = i / kTile, f = i % kTile;
      float value = 0;
      if (token < count && first + f < map.F) {
        const Feature feature = list.load(f);
        value = feature.factor;
        if (feature.a >= 0) value *= to_float(x.load(token, feature.a));
        if (feature.b >= 0) value *= to_float(x.load(token, feature.b));
      }
      tile.store(token * kTileStride + f, value);
    }
  }
}

// tile[token][w - first] = v, with the column of ones that sums the weights behind the last of v's E
// columns if W > E. A barrier has to follow.
template <class T>
__device__ void load_values(Shared<float> tile, const Rows<T>& v, int count, int E, int W,
                            int first) {
  load_tile(tile, v.data + first, v.stride, count, E - first);
  if (W == E || E < first || E >= first + kTile) return;
  block_barrier();
  if (thread_id() < count && thread_id() < kTile) {
    tile.store(thread_id() * kTileStride + E - first, 1.0f);
  }
}

// ---- Documents ---------------------------------------------------------------------------------

struct Documents {
  Global<const int> ids;  // of the whole sequence; null: one document
  std::int64_t batch_stride = 0, stride = 0;
  std::int64_t position = 0;  // of the chunk's first token
  bool causal = true;         // false: nothing begins in the chunk

  Documents() = default;
  Documents(const Run& tokens, const Tensor& segments, bool is_causal)
      : position(tokens.first), causal(is_causal) {
    if (!segments.defined()) return;
    SP_CHECK(segments.dtype() == DType::kI32, "segment ids are i32");
    ids = Global<const int>(segments.as<int>());
    batch_stride = segments.stride(0);
    stride = segments.stride(1);
  }

  // Whether a document begins at a token of the chunk.
  __device__ bool begins(int b, std::int64_t token) const {
    const std::int64_t at = position + token;
    if (!causal) return false;
    if (at == 0) return true;
    if (!ids) return false;
    const Global<const int> row = ids + b * batch_stride;
    return row.load(at * stride) != row.load((at - 1) * stride);
  }
  // Whether one begins at any of the tokens [first, last). The whole block asks together, and passes
  // a barrier before it asks again.
  __device__ bool begin_in(int b, std::int64_t first, std::int64_t last, Shared<int> flags) const {
    if (!causal || first >= last) return false;
    if (!ids) return position + first == 0;
    bool found = false;
    for (std::int64_t i = first + thread_id(); i < last && !found; i += kTileThreads) {
      found = begins(b, i);
    }
    const bool any = warp_any(found);
    if (lane_id() == 0) flags.store(warp_id(), any ? 1 : 0);
    block_barrier();
    int result = 0;
    for (int warp = 0; warp < kTileThreads / kWarp; ++warp) result |= flags.load(warp);
    return result != 0;
  }
};

// starts[j] of the tokens j of a tile: where in the tile the document of j begins, -1: before it.
// starts[kTile] is that of the last token, starts[kTile + 1] the number of tokens whose document began
// before the tile. Formed by the first warp; a barrier has to follow.
constexpr int kLastStart = kTile, kOpenTokens = kTile + 1;
constexpr int kStartsBytes = (kTile + 4) * static_cast<int>(sizeof(int));
__device__ inline void find_starts(Shared<int> starts, const Documents& documents, int b,
                                   std::int64_t first, int count) {
  if (warp_id() != 0) return;
  const int even = 2 * lane_id(), odd = even + 1;
  const bool begins_even = even < count && documents.begins(b, first + even);
  const bool begins_odd = odd < count && documents.begins(b, first + odd);
  int latest = begins_odd ? odd : begins_even ? even : -1;
  int open = begins_even ? even : begins_odd ? odd : count;
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    const int other = shuffle_xor(open, mask);
    open = other < open ? other : open;
  }
  for (int step = 1; step < kWarp; step *= 2) {
    const int earlier = shuffle(latest, lane_id() >= step ? lane_id() - step : lane_id());
    latest = earlier > latest ? earlier : latest;
  }
  const int before = shuffle(latest, lane_id() > 0 ? lane_id() - 1 : 0);
  starts.store(even, begins_even ? even : lane_id() > 0 ? before : -1);
  starts.store(odd, latest);
  if (lane_id() == kWarp - 1) starts.store(kLastStart, latest);
  if (lane_id() == 0) starts.store(kOpenTokens, open);
}

// ---- Decays ------------------------------------------------------------------------------------

// exp(m log_decay) for m = 0..kTile; the exponent keeps the digits that its product loses. A barrier
// has to follow.
constexpr int kPowersBytes = (kTile + 4) * static_cast<int>(sizeof(float));
__device__ inline void form_powers(Shared<float> powers, float log_decay) {
  if (thread_id() > kTile) return;
  const auto m = static_cast<float>(thread_id());
  const float product = m * log_decay, power = expf(product);
  powers.store(thread_id(), fmaf(power, fmaf(m, log_decay, -product), power));
}

// A tile times the gates of a run of tokens, in place. One thread takes kRun tokens of one channel,
// and gets there by the product of the runs between: kTile / kRun runs for each of kTile channels.
constexpr int kRun = kTile * kTile / kTileThreads;  // 16
constexpr int kRuns = kTile / kRun;
constexpr int kTotalsBytes = kRuns * kTile * static_cast<int>(sizeof(float));

// From a loaded tile of log decays to gates, and totals[run][channel], the sums over the runs. The
// first barrier is for the tile, the last one has to follow.
__device__ inline void open_gates(Shared<float> gates, Shared<float> totals) {
  block_barrier();
  const int channel = thread_id() % kTile, run = thread_id() / kTile;
  float total = 0;
  for (int token = run * kRun; token < (run + 1) * kRun; ++token) {
    const int at = token * kTileStride + channel;
    const float log_decay = gates.load(at);
    total += log_decay;
    gates.store(at, expf(log_decay));
  }
  totals.store(run * kTile + channel, total);
}
__device__ inline float total_of(Shared<const float> totals, int channel) {
  float total = 0;
  for (int run = 0; run < kRuns; ++run) total += totals.load(run * kTile + channel);
  return total;
}

__device__ inline float gate_product(Shared<const float> gates, int first, int last) {
  float product = 1;
  for (int token = first; token < last; ++token) product *= gates.load(token * kTileStride);
  return product;
}
// x[token] *= the gates of [0, token].
__device__ inline void fade_until(Shared<float> x, Shared<const float> gates) {
  const int channel = thread_id() % kTile, first = thread_id() / kTile * kRun;
  x = x + channel;
  gates = gates + channel;
  float factor = gate_product(gates, 0, first);
  for (int token = first; token < first + kRun; ++token) {
    const int at = token * kTileStride;
    factor *= gates.load(at);
    x.store(at, x.load(at) * factor);
  }
}
// x[token] *= the gates of (token, kTile), and 0 for tokens before `start`.
__device__ inline void fade_after(Shared<float> x, Shared<const float> gates, int start) {
  const int channel = thread_id() % kTile, first = thread_id() / kTile * kRun;
  x = x + channel;
  gates = gates + channel;
  float factor = gate_product(gates, first + kRun, kTile);
  for (int token = first + kRun - 1; token >= first; --token) {
    const int at = token * kTileStride;
    x.store(at, token < start ? 0.0f : x.load(at) * factor);
    factor *= gates.load(at);
  }
}
// Per head, or without decay: x[token] *= powers[last - token], and 0 for tokens before `start`.
template <bool kDecays>
__device__ void fade_rows(Shared<float> x, Shared<const float> powers, int last, int start) {
  for (int i = thread_id(); i < kTile * kTile / 4; i += kTileThreads) {
    const int token = i / (kTile / 4), at = token * kTileStride + i % (kTile / 4) * 4;
    const bool inside = token >= start && token <= last;
    const float factor = !inside ? 0.0f : kDecays ? powers.load(last - token) : 1.0f;
    float4 value = x.load_as<float4>(at);
    value = {value.x * factor, value.y * factor, value.z * factor, value.w * factor};
    x.store_as(at, value);
  }
}

// Rows of a state times exp(log_decay_of(row)). It lives through many tiles: multiplied by rounded
// factors close to 1 it would drift, as their errors have one sign. What it loses has no such error.
template <class F>
__device__ void fade_state(Micro& state, F log_decay_of) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float log_decay = log_decay_of(micro_row(i));
    const bool weak = log_decay > -0.5f;
    const float factor = weak ? expm1f(log_decay) : expf(log_decay);
    for (int j = 0; j < 4; ++j) {
      state[i][j] = fmaf(state[i][j], factor, weak ? state[i][j] : 0.0f);
    }
  }
}

// ---- States ------------------------------------------------------------------------------------

// c += this thread's elements of the matrix [rows, columns] in global memory, as store_micro writes
// them.
__device__ inline void add_from(Micro& c, Global<const float> from, std::int64_t stride,
                                std::int64_t rows, std::int64_t columns) {
  const int column = micro_column<false>(0);
  const bool aligned = vector_aligned<4>(from.address(), stride);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (micro_row(i) >= rows) break;
    const std::int64_t at = micro_row(i) * stride + column;
    if (aligned && column + 4 <= columns) {
      const float4 x = from.load_as<float4>(at);
      c[i][0] += x.x;
      c[i][1] += x.y;
      c[i][2] += x.z;
      c[i][3] += x.w;
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (column + j < columns) c[i][j] += from.load(at + j);
    }
  }
}
// The elements go to their place in a tile.
__device__ inline void store_to_tile(Shared<float> tile, const Micro& c) {
  for (int i = 0; i < 4; ++i) {
    tile.store_as(micro_row(i) * kTileStride + micro_column<false>(0),
                  float4{c[i][0], c[i][1], c[i][2], c[i][3]});
  }
}

// ---- Host side ---------------------------------------------------------------------------------

// What kernels get of LinearTerms.
struct DeviceTerms {
  FeatureMap map;
  float scale = 1;
  View<const float> log_decay;  // [1, 1, H, 1] or [n, B, H, D]
  Documents documents;

  DeviceTerms(const LinearBlock& block, std::int64_t channels)
      : map(block.terms.module, channels),
        scale(static_cast<float>(block.terms.scale)),
        log_decay(view<const float>(block.terms.log_decay)),
        documents(block.tokens, block.terms.segments, block.terms.causal) {}
};

// Queries or keys of Rebased on their way: gamma (x - mean) / sqrt(var + 1e-6) + beta as f32, dense
// [n, B, H, D], in scratch that lives as long as this. Of other modules the tensor itself.
class MappedVectors {
 public:
  MappedVectors(const Gpu& gpu, const LinearTerms& terms, const Tensor& x);

  template <class X>
  View<const X> view() const {
    if (scratch_ == nullptr) return SP_GPU::view<const X>(x_);
    View<const X> dense;
    dense.data = Global<const X>(scratch_->as<X>());
    for (int axis = 3; axis >= 0; --axis) {
      dense.stride[axis] = axis == 3 ? 1 : dense.stride[axis + 1] * x_.extent(axis + 1);
    }
    return dense;
  }

 private:
  const Tensor x_;
  std::unique_ptr<Scratch> scratch_;  // null: not normalised
};

// Calls f.operator()<X, V, decay, mapped>() with X the type of the vectors, V that of the tensors.
template <class F>
void visit_linear(Module module, DType storage, F&& f) {
  visit_storage(storage, [&]<class V>() {
    switch (module) {
      case Module::kBased:
        return f.template operator()<V, V, Decay::kNone, true>();
      case Module::kRebased:
        return f.template operator()<float, V, Decay::kNone, true>();
      case Module::kGla:
        return f.template operator()<V, V, Decay::kPerChannel, false>();
      case Module::kLightning:
      case Module::kRetention:
        return f.template operator()<V, V, Decay::kPerHead, false>();
      case Module::kBasic:
        return f.template operator()<V, V, Decay::kNone, false>();
    }
  });
}

}  // namespace sp::SP_GPU
