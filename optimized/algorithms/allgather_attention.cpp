// All-gather context parallelism: every rank gathers all keys and values, then attends with its own
// queries.
//
// Paper      Llama 3 (Grattafiori et al., 2024, arXiv:2407.21783), section on context parallelism;
//            also the softmax layers of LASP-2H (Sun et al., 2025, arXiv:2502.07563, algorithm 7).
// Pattern    One all-gather of K and V; backward gathers again and reduce-scatters dK, dV.
// Sharding   zigzag, so that causal work is balanced.
// Cost/rank  forward 2(P-1) c hkv elements; backward as much plus 2(P-1) c hkv in f32.
// Memory     all keys and values, in backward also their f32 gradients: O(N).
// Invariant  Gathered rows lie in rank order; their positions are those of the ranks' shards, one
//            after the other.
// Departs    K and V are gathered whole, not per head group, and gathered again in backward instead
//            of kept.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/allgather_attention.hpp"

#include "optimized/algorithms/attention_pass.hpp"

namespace sp {
namespace {

Keys gather(Context& ctx, const Shards& in) {
  const Keys own{in.layout.tokens(ctx.comm.rank()), in.k, in.v};
  return Gathering(ctx, ctx.comm, own, in.layout).wait();
}

Forward forward(Context& ctx, const Shards& in) {
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Keys all = gather(ctx, in);
  const Partial result = allocate_partial(ctx, in, mine.count(), in.problem.dtype);
  ctx.kernels.attention({in.q, all.k, all.v, mine, all.tokens, in.mask, in.problem.scale}, result);
  return {result.out, result.lse, {}};
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const DType acc = accumulator_of(in.problem.dtype);
  Keys all = gather(ctx, in);
  AttentionPass pass(ctx, in, saved, d_out);
  all.d_k = zeros(ctx, acc, all.k.shape(), "d_k");
  all.d_v = zeros(ctx, acc, all.v.shape(), "d_v");
  pass.attend(all);
  const Tensor d_k = allocate_like(ctx, in.k, acc, in.k.extent(0), "d_k");
  const Tensor d_v = allocate_like(ctx, in.v, acc, in.v.extent(0), "d_v");
  Pending k_pending = ctx.comm.reduce_scatter(parts_of(all.d_k, in.layout), d_k, {"d_k", 0});
  Pending v_pending = ctx.comm.reduce_scatter(parts_of(all.d_v, in.layout), d_v, {"d_v", 0});
  k_pending.wait();
  v_pending.wait();
  return pass.finish(d_k, d_v);
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t P = world.size, n = layout.count(rank), N = layout.size();
  const std::int64_t pairs = pairs_of_queries(problem, layout, rank);
  const std::int64_t gathered = n * token.kv() * (P - 1);
  return {{gathered, 2 * (P - 1), forward_flops(problem, pairs)},
          {gathered + (N - n) * token.acc_kv(), 4 * (P - 1), backward_flops(problem, pairs)}};
}

}  // namespace

const Algorithm kAllgather{
    .id = "allgather",
    .title = "All-gather context parallelism",
    .paper = "Grattafiori et al. 2024, arXiv:2407.21783",
    .pattern = "all-gather of K, V; reduce-scatter of dK, dV",
    .sharding = Sharding::kZigzag,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
