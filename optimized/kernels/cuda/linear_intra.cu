// Linear attention inside tiles of 64 tokens: sums = scale (weights * decay * mask) v.
//
// Blocks     One per tile, query head and sequence, all independent. Scores are formed once and meet
//            all columns of v.
// Weights    <phi(q), phi(k)> in closed form: <q, k>, 1 + s + s^2/2 or a square, by FeatureMap.
// Cost       2 * 64 (D + W) flops per token and head; reads of q, k, v and writes of sums once.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/linear_launch.hpp"
#include "optimized/kernels/cuda/linear_weights.cuh"

namespace sp::SP_GPU {
namespace {

template <class X, class V>
struct IntraArguments {
  View<const X> q, k;
  View<const V> v;
  View<float> sums;
  DeviceTerms terms;
  int n, E, W, group;  // query heads of a key head
};

template <class X, class V, Decay decay>
__global__ void __launch_bounds__(kTileThreads, decay == Decay::kPerChannel ? 2 : 3)
    linear_intra(IntraArguments<X, V> p) {
  constexpr bool kGated = decay == Decay::kPerChannel;
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const auto count = static_cast<int>(p.n - first < kTile ? p.n - first : kTile);
  const Shared<float> q = shared_tile(0), k = shared_tile(1), gates = shared_tile(2);
  const Shared<float> weights = q, v = k;  // later
  const int tiles = kGated ? 3 : 2;
  const auto starts = shared_memory<int>(tiles * kTileBytes);
  const auto powers = shared_memory<float>(tiles * kTileBytes + kStartsBytes);

  find_starts(starts, p.terms.documents, b, first, count);
  if (decay == Decay::kPerHead)
    form_powers(powers, p.terms.log_decay.data.load(p.terms.log_decay.offset(0, 0, h)));
  Rows<float> log_decay;
  if constexpr (kGated) log_decay = rows_of(p.terms.log_decay, first, b, h);
  const WeightOperands<X> operands{rows_of(p.q, first, b, h), rows_of(p.k, first, b, h / p.group),
                                   log_decay, count};
  form_weights<decay>(weights, q, k, gates, powers, starts, operands, p.terms.map);

  const Rows<V> values = rows_of(p.v, first, b, h / p.group);
#pragma unroll 1
  for (int w = 0; w < p.W; w += kTile) {
    if (w > 0) block_barrier();
    load_values(v, values, count, p.E, p.W, w);
    block_barrier();
    Micro c;
    clear(c);
    multiply<Stored::kPlain, Stored::kPlain>(c, weights, v, product_depth(count));
    scale(c, p.terms.scale);
    store_micro<false>(c, p.sums.data + p.sums.offset(first, b, h, w), p.sums.stride[0], count,
                       p.W - w);
  }
}

}  // namespace

void launch_intra(const Gpu& gpu, const LinearBlock& block, const MappedVectors& q,
                  const MappedVectors& k, const Tensor& sums) {
  const Tensor& v = block.v;
  visit_linear(block.terms.module, v.dtype(), [&]<class X, class V, Decay decay, bool mapped>() {
    const int tiles = decay == Decay::kPerChannel ? 3 : 2;
    const Launch shape{
        dim3(static_cast<unsigned>(tiles_of(block.tokens.count)),
             static_cast<unsigned>(sums.extent(2)), static_cast<unsigned>(sums.extent(1))),
        kTileThreads, tiles * kTileBytes + kStartsBytes + kTotalsBytes};
    const IntraArguments<X, V> arguments{
        q.view<X>(),
        k.view<X>(),
        view<const V>(v),
        view<float>(sums),
        DeviceTerms(block, block.k.extent(3)),
        static_cast<int>(block.tokens.count),
        static_cast<int>(v.extent(3)),
        static_cast<int>(sums.extent(3)),
        static_cast<int>(sums.extent(2) / std::max<std::int64_t>(v.extent(2), 1))};
    launch(gpu, "linear_intra", &linear_intra<X, V, decay>, shape, arguments);
  });
}

}  // namespace sp::SP_GPU
