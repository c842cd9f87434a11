// DeepSpeed-Ulysses: all-to-all turns token shards into head shards; each rank attends over the
// whole sequence.
//
// Paper      Jacobs et al., 2023, arXiv:2309.14509.
// Pattern    All-to-all of Q, K, V, attention of H/P heads, all-to-all of out; backward the same
//            with roles swapped.
// Sharding   contiguous (any would do: the work per rank does not depend on it).
// Cost/rank  (2h + 2hkv) c (P-1)/P elements each way: falls with P, unlike every ring.
// Memory     Q, K, V, out of all tokens for H/P heads: O(N/P), kept for backward.
// Invariant  Head shards hold all tokens in order; rank r has query heads [rH/P, (r+1)H/P) and
//            their key heads.
// Departs    Nothing; the log-sum-exp stays with the heads, since the paper does not move it.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/ulysses.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/head_resharding.hpp"

namespace sp {
namespace {

Forward forward(Context& ctx, const Shards& in) {
  const Tokens all({{0, 1, in.layout.size()}});
  const HeadGroup group{ctx.comm, in.layout};
  const auto heads = to_heads(ctx, group, {{"q", in.q}, {"k", in.k}, {"v", in.v}});
  const Tensor &q = heads[0], &k = heads[1], &v = heads[2];
  const Partial result{
      ctx.memory.allocate(in.problem.dtype, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)},
                          "out"),
      ctx.memory.allocate(accumulator_of(in.problem.dtype),
                          {q.extent(0), q.extent(1), q.extent(2), 1}, "lse")};
  ctx.kernels.attention({q, k, v, all, all, in.mask, in.problem.scale}, result);
  const auto out = to_tokens(ctx, group, {{"out", result.out}});
  return {out[0], result.lse, {q, k, v, result.out}};
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const DType acc = accumulator_of(in.problem.dtype), dtype = in.problem.dtype;
  const Tokens all({{0, 1, in.layout.size()}});
  const HeadGroup group{ctx.comm, in.layout};
  const Tensor &q = saved.saved[0], &k = saved.saved[1], &v = saved.saved[2], &out = saved.saved[3];
  const auto d_out_heads = to_heads(ctx, group, {{"d_out", d_out}});
  const Tensor delta = delta_of(ctx, d_out_heads[0], out);
  const Tensor d_q = zeros(ctx, acc, q.shape(), "d_q");
  const Tensor d_k = zeros(ctx, acc, k.shape(), "d_k");
  const Tensor d_v = zeros(ctx, acc, v.shape(), "d_v");
  ctx.kernels.attention_backward({q, k, v, all, all, in.mask, in.problem.scale}, d_out_heads[0],
                                 saved.lse, delta, {d_q, d_k, d_v});
  const auto gradients = to_tokens(ctx, group,
                                   {{"d_q", to_storage(ctx, d_q, dtype, "d_q")},
                                    {"d_k", to_storage(ctx, d_k, dtype, "d_k")},
                                    {"d_v", to_storage(ctx, d_v, dtype, "d_v")}});
  return {gradients[0], gradients[1], gradients[2]};
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const Shape& s = problem.shape;
  const std::int64_t P = world.size, n = layout.count(rank), N = layout.size();
  const Tokens all({{0, 1, N}});
  const std::int64_t pairs = visible_pairs(band_of(problem), all, all);
  const std::int64_t inputs = token.q + token.kv();
  return {{n * inputs / P * (P - 1) + (N - n) * token.out / P, 4 * (P - 1),
           attention_flops(pairs, s.B, s.H / P, s.D, s.E)},
          {n * token.out / P * (P - 1) + (N - n) * inputs / P, 4 * (P - 1),
           attention_backward_flops(pairs, s.B, s.H / P, s.D, s.E)}};
}

Support supports(const Problem& problem, const World& world) {
  if (const Support softmax = softmax_only(problem, world); !softmax) return softmax;
  const Shape& s = problem.shape;
  if (s.H % world.size == 0 && s.G % world.size == 0) return {};
  return tl::unexpected(Unsupported{fmt::format(
      "heads do not divide over the ranks: H = {} and G = {} must be multiples of P = {}", s.H, s.G,
      world.size)});
}

}  // namespace

const Algorithm kUlysses{
    .id = "ulysses",
    .title = "DeepSpeed-Ulysses",
    .paper = "Jacobs et al. 2023, arXiv:2309.14509",
    .pattern = "all-to-all over heads of Q, K, V and out",
    .sharding = Sharding::kContiguous,
    .supports = supports,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
