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

namespace sp {
namespace {

// A tensor on its way between token shards [n, B, heads, D] and head shards [N, B, heads/P, D].
struct Resharding {
  Tensor packed;  // [P n, B, heads/P, D]: the token shard, ordered by the rank that has the heads
  Tensor heads;   // [N, B, heads/P, D]
  Pending pending;
};

std::vector<Tensor> by_peer(const Tensor& packed, int ranks) {
  std::vector<Tensor> parts;
  const std::int64_t rows = packed.extent(0) / ranks;
  for (int peer = 0; peer < ranks; ++peer)
    parts.push_back(packed.rows(peer * rows, (peer + 1) * rows));
  return parts;
}

Tensor heads_of(const Tensor& tokens, int peer, int ranks) {
  const std::int64_t share = tokens.extent(2) / ranks;
  return tokens.slice(2, peer * share, (peer + 1) * share);
}

Tensor allocate_packed(Context& ctx, const Tensor& tokens) {
  const int P = ctx.comm.size();
  return ctx.memory.allocate(
      tokens.dtype(),
      {P * tokens.extent(0), tokens.extent(1), tokens.extent(2) / P, tokens.extent(3)}, "packed");
}

Resharding post_to_heads(Context& ctx, const Layout& layout, const Tensor& tokens,
                         const char* name) {
  const int P = ctx.comm.size();
  Resharding moving{
      allocate_packed(ctx, tokens),
      ctx.memory.allocate(tokens.dtype(),
                          {layout.size(), tokens.extent(1), tokens.extent(2) / P, tokens.extent(3)},
                          name),
      {}};
  const std::vector<Tensor> parts = by_peer(moving.packed, P);
  for (int peer = 0; peer < P; ++peer) {
    ctx.kernels.copy(parts[static_cast<std::size_t>(peer)], heads_of(tokens, peer, P));
  }
  moving.pending = ctx.comm.all_to_all(parts, parts_of(moving.heads, layout), {name, 0});
  return moving;
}

Tensor finish_to_heads(Resharding& moving) {
  moving.pending.wait();
  moving.packed = {};
  return moving.heads;
}

Resharding post_to_tokens(Context& ctx, const Layout& layout, const Tensor& heads,
                          const Tensor& tokens, const char* name) {
  Resharding moving{allocate_packed(ctx, tokens), heads, {}};
  moving.pending = ctx.comm.all_to_all(parts_of(heads, layout),
                                       by_peer(moving.packed, ctx.comm.size()), {name, 0});
  return moving;
}

void finish_to_tokens(Context& ctx, Resharding& moving, const Tensor& tokens) {
  const int P = ctx.comm.size();
  moving.pending.wait();
  const std::vector<Tensor> parts = by_peer(moving.packed, P);
  for (int peer = 0; peer < P; ++peer) {
    ctx.kernels.copy(heads_of(tokens, peer, P), parts[static_cast<std::size_t>(peer)]);
  }
}

Forward forward(Context& ctx, const Shards& in) {
  const Tokens all({{0, 1, in.layout.size()}});
  Resharding q_moving = post_to_heads(ctx, in.layout, in.q, "q");
  Resharding k_moving = post_to_heads(ctx, in.layout, in.k, "k");
  Resharding v_moving = post_to_heads(ctx, in.layout, in.v, "v");
  const Tensor q = finish_to_heads(q_moving), k = finish_to_heads(k_moving),
               v = finish_to_heads(v_moving);
  const Partial result{
      ctx.memory.allocate(in.problem.dtype, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)},
                          "out"),
      ctx.memory.allocate(accumulator_of(in.problem.dtype),
                          {q.extent(0), q.extent(1), q.extent(2), 1}, "lse")};
  ctx.kernels.attention({q, k, v, all, all, in.mask, in.problem.scale}, result);
  const Tensor out = ctx.memory.allocate(
      in.problem.dtype, {in.q.extent(0), in.q.extent(1), in.q.extent(2), in.v.extent(3)}, "out");
  Resharding out_moving = post_to_tokens(ctx, in.layout, result.out, out, "out");
  finish_to_tokens(ctx, out_moving, out);
  return {out, result.lse, {q, k, v, result.out}};
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const DType acc = accumulator_of(in.problem.dtype), dtype = in.problem.dtype;
  const Tokens all({{0, 1, in.layout.size()}});
  const Tensor &q = saved.saved[0], &k = saved.saved[1], &v = saved.saved[2], &out = saved.saved[3];
  Resharding d_out_moving = post_to_heads(ctx, in.layout, d_out, "d_out");
  const Tensor d_out_heads = finish_to_heads(d_out_moving);
  const Tensor delta = delta_of(ctx, d_out_heads, out);
  const Tensor d_q = zeros(ctx, acc, q.shape(), "d_q");
  const Tensor d_k = zeros(ctx, acc, k.shape(), "d_k");
  const Tensor d_v = zeros(ctx, acc, v.shape(), "d_v");
  ctx.kernels.attention_backward({q, k, v, all, all, in.mask, in.problem.scale}, d_out_heads,
                                 saved.lse, delta, {d_q, d_k, d_v});
  Gradients gradients{allocate_like(ctx, in.q, dtype, in.q.extent(0), "d_q"),
                      allocate_like(ctx, in.k, dtype, in.k.extent(0), "d_k"),
                      allocate_like(ctx, in.v, dtype, in.v.extent(0), "d_v"),
                      {},
                      {}};
  Resharding q_moving =
      post_to_tokens(ctx, in.layout, to_storage(ctx, d_q, dtype, "d_q"), gradients.d_q, "d_q");
  Resharding k_moving =
      post_to_tokens(ctx, in.layout, to_storage(ctx, d_k, dtype, "d_k"), gradients.d_k, "d_k");
  Resharding v_moving =
      post_to_tokens(ctx, in.layout, to_storage(ctx, d_v, dtype, "d_v"), gradients.d_v, "d_v");
  finish_to_tokens(ctx, q_moving, gradients.d_q);
  finish_to_tokens(ctx, k_moving, gradients.d_k);
  finish_to_tokens(ctx, v_moving, gradients.d_v);
  return gradients;
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const Shape& s = problem.shape;
  const std::int64_t P = world.size, n = layout.count(rank), N = layout.size();
  const Tokens all({{0, 1, N}});
  const std::int64_t pairs = visible_pairs(band_of(problem), all, all);
  const std::int64_t inputs = token.q + token.kv();
  const std::int64_t results = N * storage_bytes(problem, inputs) / P;
  Cost cost;
  cost.forward = {
      n * inputs / P * (P - 1) + (N - n) * token.out / P, 4 * (P - 1),
      attention_flops(pairs, s.B, s.H / P, s.D, s.E),
      N * inputs / P + std::max(n * inputs, N * (token.out + token.lse) / P + 2 * n * token.out)};
  cost.backward = {n * token.out / P * (P - 1) + (N - n) * inputs / P, 4 * (P - 1),
                   attention_backward_flops(pairs, s.B, s.H / P, s.D, s.E),
                   N * token.out / P +
                       std::max(n * token.out, N * (token.lse + token.acc_q + token.acc_kv()) / P +
                                                   results + 2 * n * inputs)};
  return cost;
}

Support supports(const Problem& problem, const World& world) {
  if (const Support softmax = softmax_only(problem); !softmax) return softmax;
  const Shape& s = problem.shape;
  if (s.H % world.size == 0 && s.G % world.size == 0) return {};
  return tl::unexpected(Unsupported{fmt::format(
      "heads do not divide over the ranks: H = {} and G = {} must be multiples of P = {}", s.H, s.G,
      world.size)});
}

}  // namespace

const Algorithm kUlysses{"ulysses",
                         "DeepSpeed-Ulysses",
                         "Jacobs et al. 2023, arXiv:2309.14509",
                         "all-to-all over heads of Q, K, V and out",
                         Family::kSoftmax,
                         Sharding::kContiguous,
                         1,
                         supports,
                         cost,
                         forward,
                         backward};

}  // namespace sp
