// USP (unified sequence parallelism): Ulysses inside each node, Ring Attention between nodes.
//
// Paper      Fang, Zhao, 2024, arXiv:2405.07719.
// Pattern    On a mesh of M nodes of U ranks: all-to-all of Q, K, V inside the node, a ring of
//            the ranks of one index, all-to-all of out; backward the same with roles swapped.
// Sharding   contiguous or zigzag. U = 1 is a ring, M = 1 is Ulysses; the text has no cases.
// Cost/rank  forward (2h + 2hkv) c (U-1)/U elements inside the node and 2(M-1) c hkv between nodes:
//            a ring's block holds U times the tokens for 1/U of the heads. Backward the same, and
//            2M c hkv in f32.
// Memory     Q, K, V, out of the node's tokens for H/U heads, kept for backward; a ring's blocks
//            and accumulators on them: O(N/P).
// Invariant  For the ring, a node is one rank of the grouped layout with 1/U of the heads: the ring
//            is the text of ring_attention.cpp, called on that smaller problem.
// Departs    Zigzag chunks are cut for all P ranks; a node's tokens are those of the paper's 2M
//            chunks, but each of its ranks holds parts of both. Q, K and V are not packed into one
//            message. U must divide the key heads: they are not replicated.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/usp.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/head_resharding.hpp"
#include "optimized/algorithms/ring_attention.hpp"

namespace sp {
namespace {

struct Axes {
  HeadGroup heads;  // inside the node
  Context across;   // between nodes
};

Axes axes_of(Context& ctx, const Layout& layout) {
  const Mesh mesh = node_mesh(ctx);
  return {{mesh.group(ctx.comm, "local"), layout.of(mesh.along("local"))},
          {mesh.group(ctx.comm, "node"), ctx.kernels, ctx.memory}};
}

Problem share_of_heads(Problem problem, int ranks) {
  problem.shape.H /= ranks;
  problem.shape.G /= ranks;
  return problem;
}

template <const Algorithm* kRing>
Forward forward(Context& ctx, const Shards& in) {
  Axes axes = axes_of(ctx, in.layout);
  const auto heads = to_heads(ctx, axes.heads, {{"q", in.q}, {"k", in.k}, {"v", in.v}});
  const Problem share = share_of_heads(in.problem, ctx.node_size);
  const Forward result = kRing->forward(axes.across, {share, in.layout.grouped(ctx.node_size),
                                                      in.mask, heads[0], heads[1], heads[2]});
  const auto out = to_tokens(ctx, axes.heads, {{"out", result.out}});
  return {out[0], result.lse, {heads[0], heads[1], heads[2], result.out}};
}

template <const Algorithm* kRing>
Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  Axes axes = axes_of(ctx, in.layout);
  const std::vector<Tensor>& heads = saved.saved;
  const auto d_out_heads = to_heads(ctx, axes.heads, {{"d_out", d_out}});
  const Problem share = share_of_heads(in.problem, ctx.node_size);
  const Gradients of_heads = kRing->backward(
      axes.across, {share, in.layout.grouped(ctx.node_size), in.mask, heads[0], heads[1], heads[2]},
      {heads[3], saved.lse, {}}, d_out_heads[0]);
  const auto gradients = to_tokens(
      ctx, axes.heads, {{"d_q", of_heads.d_q}, {"d_k", of_heads.d_k}, {"d_v", of_heads.d_v}});
  return {gradients[0], gradients[1], gradients[2]};
}

template <const Algorithm* kRing>
Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const int U = world.node_size, node = rank / U;
  const Layout nodes = layout.grouped(U);
  Cost cost = kRing->cost(share_of_heads(problem, U), nodes, {world.size / U}, node);
  const std::int64_t n = layout.count(rank), others = nodes.count(node) - n;
  const std::int64_t inputs = token.q + token.kv(), out = token.out;
  cost.forward.bytes_sent += n * inputs / U * (U - 1) + others * out / U;
  cost.backward.bytes_sent += n * out / U * (U - 1) + others * inputs / U;
  cost.forward.messages_sent += 4 * (U - 1);
  cost.backward.messages_sent += 4 * (U - 1);
  return cost;
}

Support supports(const Problem& problem, const World& world) {
  if (const Support softmax = softmax_only(problem, world); !softmax) return softmax;
  const Shape& s = problem.shape;
  if (s.H % world.node_size == 0 && s.G % world.node_size == 0) return {};
  return tl::unexpected(Unsupported{
      fmt::format("heads do not divide over the ranks of a node: H = {} and G = {} must be "
                  "multiples of U = {}",
                  s.H, s.G, world.node_size)});
}

template <const Algorithm* kRing>
constexpr Algorithm describe(const char* id, const char* title, Sharding sharding) {
  return {
      .id = id,
      .title = title,
      .paper = "Fang, Zhao 2024, arXiv:2405.07719",
      .pattern = "all-to-all over heads inside nodes, K, V around a ring of nodes",
      .sharding = sharding,
      .supports = supports,
      .cost = cost<kRing>,
      .forward = forward<kRing>,
      .backward = backward<kRing>,
  };
}

}  // namespace

const Algorithm kUspContiguous =
    describe<&kRingContiguous>("usp/contiguous", "USP", Sharding::kContiguous);
const Algorithm kUspZigzag = describe<&kRingZigzag>("usp/zigzag", "USP, zigzag", Sharding::kZigzag);

}  // namespace sp
