// The left product of linear attention backward: every query tile against every key tile that it
// sees.
//
// With w_ij = scale decay_ij over the pairs (query i, key j) that see each other:
//   d_q_i = sum over j of w_ij <d_out_i, v_j> k_j      d_k_j = sum over i of w_ij <d_out_i, v_j> q_i
//   d_v_j = sum over i of w_ij <q_i, k_j> d_out_i
//   d_log_decay = sum over i, j of |i - j| w_ij <q_i, k_j> <d_out_i, v_j>
// Blocks     One per gradient, 64 tokens, head and sequence. Products meet 128 columns of the other
//            side at a time, whose sums stay in registers while the other tokens pass.
// Cost       2 * 64 (D + E) flops per pair of tiles and gradient, against reads of 64 (D + E)
//            elements; d_log_decay is one more such pass.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/linear_documents.hpp"
#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {
namespace {

constexpr int kWideTiles = 2;  // of columns of the gradient
// Per multiprocessor: what registers allow without spilling.
[[maybe_unused]] constexpr int kTileBlocks = 2;

enum class Wanted : std::uint8_t { kQueries, kKeys, kValues };

template <class T>
struct LeftArguments {
  View<const T> q, k, v, d_out;
  View<float> target;
  View<const float> log_decay;  // [1, 1, H, 1], null: none
  TokenTable queries, keys;
  Mask mask;
  float scale;
  int D, E, group;
};

// The pairs of one tile of queries and one of keys, of which a thread has 4 x 4.
struct Pairs {
  std::int64_t first_query, first_key;
  Visibility visibility;

  template <class T>
  __device__ Pairs(const LeftArguments<T>& p, std::int64_t query, std::int64_t key)
      : first_query(query),
        first_key(key),
        visibility(
            p.mask.classify(p.queries.spans.load(query / kTile), p.keys.spans.load(key / kTile))) {}
  __device__ bool empty() const { return visibility == Visibility::kEmpty; }

  // c[i][j] = f(c[i][j], distance) where the query sees the key, else 0.
  template <class T, class F>
  __device__ void visit(Micro& c, const LeftArguments<T>& p, int b, F f) const {
    const bool partial = visibility == Visibility::kPartial;
    const auto segment = [&](int at) { return partial && at >= 0 ? p.mask.segment(b, at) : 0; };
    int key[4], key_segment[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      key[j] = position(p.keys, first_key + micro_column<true>(j));
      key_segment[j] = segment(key[j]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int query = position(p.queries, first_query + micro_row(i));
      const int query_segment = segment(query);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        bool visible = query >= 0 && key[j] >= 0;
        if (partial) {
          visible = visible && p.mask.band_sees(query, key[j]) && query_segment == key_segment[j];
        }
        const auto distance = static_cast<float>(abs(query - key[j]));
        c[i][j] = visible ? f(c[i][j], distance) : 0.0f;
      }
    }
  }

 private:
  // -1 beyond the last token.
  static __device__ int position(const TokenTable& tokens, std::int64_t i) {
    return i < tokens.count ? tokens.positions.load(i) : -1;
  }
};

// exp(log_decay distance), the product with the digits that it loses.
__device__ inline float decay_over(float log_decay, float distance) {
  if (log_decay == 0) return 1;
  const float product = log_decay * distance;
  const float decay = expf(product);
  return fmaf(decay, fmaf(log_decay, distance, -product), decay);
}

template <class T>
__device__ float log_decay_of(const LeftArguments<T>& p, int h) {
  return p.log_decay.data ? p.log_decay.data.load(p.log_decay.offset(0, 0, h)) : 0.0f;
}

// c = the products of the rows of two tiles of tokens, `depth` columns. A barrier comes first.
template <class T>
__device__ void multiply_rows(Micro& c, Shared<float> a, Shared<float> b, const Rows<T>& queries,
                              std::int64_t query_count, const Rows<T>& keys, std::int64_t key_count,
                              int depth) {
  clear(c);
#pragma unroll 1
  for (int d = 0; d < depth; d += kTile) {
    block_barrier();
    load_tile(a, queries.data + d, queries.stride, query_count, depth - d);
    load_tile(b, keys.data + d, keys.stride, key_count, depth - d);
    block_barrier();
    multiply<Stored::kPlain, Stored::kTransposed>(c, a, b, product_depth(depth - d));
  }
}

template <Wanted wanted, class T>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks) left_gradients(LeftArguments<T> p) {
  constexpr bool kOfQueries = wanted == Wanted::kQueries, kOfValues = wanted == Wanted::kValues;
  const Shared<float> weights = shared_tile(0), a = shared_tile(1), b_tile = shared_tile(2);
  const auto head = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const std::int64_t first_own = std::int64_t{blockIdx.x} * kTile;
  const TokenTable& other_tokens = kOfQueries ? p.keys : p.queries;
  const std::int64_t own_count = (kOfQueries ? p.queries : p.keys).count - first_own;
  const int first_head = kOfQueries ? head : head * p.group;
  const int last_head = kOfQueries ? head + 1 : first_head + p.group;
  const int columns = kOfValues ? p.E : p.D;

#pragma unroll 1
  for (int w = 0; w < columns; w += kWideTiles * kTile) {
    Micro sums[kWideTiles];
    for (int wide = 0; wide < kWideTiles; ++wide) clear(sums[wide]);
#pragma unroll 1
    for (int h = first_head; h < last_head; ++h) {
      const int g = h / p.group;
      const float log_decay = log_decay_of(p, h);
#pragma unroll 1
      for (std::int64_t first = 0; first < other_tokens.count; first += kTile) {
        const std::int64_t first_query = kOfQueries ? first_own : first;
        const std::int64_t first_key = kOfQueries ? first : first_own;
        const Pairs pairs(p, first_query, first_key);
        if (pairs.empty()) continue;
        Micro c;
        multiply_rows(c, a, b_tile, rows_of(kOfValues ? p.q : p.d_out, first_query, b, h),
                      p.queries.count - first_query,
                      rows_of(kOfValues ? p.k : p.v, first_key, b, g), p.keys.count - first_key,
                      kOfValues ? p.D : p.E);
        pairs.visit(c, p, b, [&](float product, float distance) {
          return product * decay_over(log_decay, distance);
        });
        // [other token][own token]
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int key = micro_column<true>(j);
          if constexpr (kOfQueries) {
            weights.store_as(key * kTileStride + micro_row(0),
                             float4{c[0][j], c[1][j], c[2][j], c[3][j]});
          } else {
            for (int i = 0; i < 4; ++i) weights.store(micro_row(i) * kTileStride + key, c[i][j]);
          }
        }
        const Rows<T> other = rows_of(kOfQueries  ? p.k
                                      : kOfValues ? p.d_out
                                                  : p.q,
                                      first, b, kOfQueries ? g : h);
        const std::int64_t count = other_tokens.count - first;
#pragma unroll
        for (int wide = 0; wide < kWideTiles; ++wide) {
          const int column = w + wide * kTile;
          if (column >= columns) continue;
          block_barrier();
          load_tile(b_tile, other.data + column, other.stride, count, columns - column);
          block_barrier();
          multiply<Stored::kTransposed, Stored::kPlain>(sums[wide], weights, b_tile,
                                                        product_depth(count));
        }
      }
    }
#pragma unroll
    for (int wide = 0; wide < kWideTiles; ++wide) {
      const int column = w + wide * kTile;
      scale(sums[wide], p.scale);
      store_micro<true>(sums[wide], p.target.data + p.target.offset(first_own, b, head, column),
                        p.target.stride[0], own_count, columns - column);
    }
  }
}

// ---- The decay ---------------------------------------------------------------------------------

// shares[head][sequence][tile of keys] = what the pairs of that tile give to d_log_decay.
template <class T>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    left_decay_shares(LeftArguments<T> p, Global<double> shares) {
  constexpr int kWarps = kTileThreads / kWarp;
  const Shared<float> a = shared_tile(0), b_tile = shared_tile(1);
  const Shared<double> warps = shared_memory<double>(2 * kTileBytes);
  const auto h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const int g = h / p.group;
  const std::int64_t first_key = std::int64_t{blockIdx.x} * kTile;
  const std::int64_t keys = p.keys.count - first_key;
  const float log_decay = log_decay_of(p, h);
  double sum = 0;
#pragma unroll 1
  for (std::int64_t first = 0; first < p.queries.count; first += kTile) {
    const Pairs pairs(p, first, first_key);
    if (pairs.empty()) continue;
    const std::int64_t queries = p.queries.count - first;
    Micro weights, gradients;
    multiply_rows(weights, a, b_tile, rows_of(p.q, first, b, h), queries,
                  rows_of(p.k, first_key, b, g), keys, p.D);
    multiply_rows(gradients, a, b_tile, rows_of(p.d_out, first, b, h), queries,
                  rows_of(p.v, first_key, b, g), keys, p.E);
    pairs.visit(weights, p, b, [&](float product, float distance) {
      return distance * product * decay_over(log_decay, distance);
    });
    float of_tile = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) of_tile += weights[i][j] * gradients[i][j];
    }
    sum += of_tile;
  }
  sum = warp_sum(sum);
  if (lane_id() == 0) warps.store(warp_id(), sum);
  block_barrier();
  if (thread_id() > 0) return;
  sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += warps.load(warp);
  shares.store((std::int64_t{blockIdx.y} * gridDim.z + blockIdx.z) * gridDim.x + blockIdx.x, sum);
}

// d_log_decay += scale times all shares of a head. One warp per head.
__global__ void add_decay_shares(View<float> d_log_decay, Global<const double> shares,
                                 std::int64_t count, float scale) {
  const auto h = static_cast<int>(blockIdx.x);
  double sum = 0;
  for (std::int64_t i = lane_id(); i < count; i += kWarp) sum += shares.load(h * count + i);
  sum = warp_sum(sum);
  if (lane_id() > 0) return;
  const std::int64_t at = d_log_decay.offset(0, 0, h);
  d_log_decay.data.store(at, static_cast<float>(d_log_decay.data.load(at) + scale * sum));
}

}  // namespace

void CudaKernels::do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                           const Tensor& d_out, const AttentionGradients& gradients,
                                           const Tensor& d_log_decay) {
  const Tensor &q = block.q, &k = block.k;
  if (q.elements() == 0 || k.elements() == 0 || d_out.elements() == 0) return;
  const DocumentMask documents(gpu_, block.mask, terms);
  const bool decays = decay_of(terms.module) == Decay::kPerHead;
  const auto B = static_cast<unsigned>(q.extent(1)), H = static_cast<unsigned>(q.extent(2)),
             G = static_cast<unsigned>(k.extent(2));
  const auto query_tiles = static_cast<unsigned>(tiles_of(q.extent(0))),
             key_tiles = static_cast<unsigned>(tiles_of(k.extent(0)));
  SP_CHECK(d_out.dtype() == q.dtype(), "on a GPU d_out holds the type of q");
  visit_storage(q.dtype(), [&]<class T>() {
    LeftArguments<T> arguments{view<const T>(q),
                               view<const T>(k),
                               view<const T>(block.v),
                               view<const T>(d_out),
                               view<float>(gradients.d_q),
                               view<const float>(decays ? terms.log_decay : Tensor()),
                               tables_.of(block.q_tokens),
                               tables_.of(block.k_tokens),
                               documents.mask(),
                               static_cast<float>(block.scale),
                               static_cast<int>(q.extent(3)),
                               static_cast<int>(block.v.extent(3)),
                               static_cast<int>(H / G)};
    const Launch of_queries{dim3(query_tiles, H, B), kTileThreads, 3 * kTileBytes};
    const Launch of_keys{dim3(key_tiles, G, B), kTileThreads, 3 * kTileBytes};
    launch(gpu_, "linear_block_d_q", &left_gradients<Wanted::kQueries, T>, of_queries, arguments);
    arguments.target = view<float>(gradients.d_k);
    launch(gpu_, "linear_block_d_k", &left_gradients<Wanted::kKeys, T>, of_keys, arguments);
    arguments.target = view<float>(gradients.d_v);
    launch(gpu_, "linear_block_d_v", &left_gradients<Wanted::kValues, T>, of_keys, arguments);
    if (!decays) return;

    const std::int64_t per_head = std::int64_t{key_tiles} * B;
    constexpr int kDouble = static_cast<int>(sizeof(double));
    const Scratch shares(gpu_, per_head * H * kDouble);
    launch(gpu_, "linear_block_d_decay", &left_decay_shares<T>,
           {dim3(key_tiles, H, B), kTileThreads, 2 * kTileBytes + kTileThreads / kWarp * kDouble},
           arguments, Global<double>(shares.as<double>()));
    launch(gpu_, "linear_block_add_decay", &add_decay_shares, {dim3(H), kWarp, 0},
           view<float>(d_log_decay), Global<const double>(shares.as<double>()), per_head,
           arguments.scale);
  });
}

}  // namespace sp::SP_GPU
