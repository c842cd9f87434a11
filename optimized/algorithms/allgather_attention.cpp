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

#include "optimized/algorithms/blocks.hpp"

namespace sp {
namespace {

struct Gathered {
  Tensor k, v;
  Tokens tokens;
};

Gathered gather(Context& ctx, const Shards& in) {
  Gathered all{allocate_like(ctx, in.k, in.k.dtype(), in.layout.size(), "k"),
               allocate_like(ctx, in.v, in.v.dtype(), in.layout.size(), "v"),
               {}};
  Pending k_pending = ctx.comm.all_gather(in.k, parts_of(all.k, in.layout), {"k", 0});
  Pending v_pending = ctx.comm.all_gather(in.v, parts_of(all.v, in.layout), {"v", 0});
  for (int rank = 0; rank < in.layout.ranks(); ++rank) all.tokens.append(in.layout.tokens(rank));
  k_pending.wait();
  v_pending.wait();
  return all;
}

Forward forward(Context& ctx, const Shards& in) {
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Gathered all = gather(ctx, in);
  const Partial result = allocate_partial(ctx, in, mine.count(), in.problem.dtype);
  ctx.kernels.attention({in.q, all.k, all.v, mine, all.tokens, in.mask, in.problem.scale}, result);
  return {result.out, result.lse, {}};
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const DType acc = accumulator_of(in.problem.dtype);
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Gathered all = gather(ctx, in);
  const Tensor delta = delta_of(ctx, d_out, saved.out);
  const Tensor d_q = zeros(ctx, acc, in.q.shape(), "d_q");
  const Tensor d_k = zeros(ctx, acc, all.k.shape(), "d_k");
  const Tensor d_v = zeros(ctx, acc, all.v.shape(), "d_v");
  ctx.kernels.attention_backward({in.q, all.k, all.v, mine, all.tokens, in.mask, in.problem.scale},
                                 d_out, saved.lse, delta, {d_q, d_k, d_v});
  const Tensor own_d_k = allocate_like(ctx, in.k, acc, mine.count(), "d_k");
  const Tensor own_d_v = allocate_like(ctx, in.v, acc, mine.count(), "d_v");
  Pending k_pending = ctx.comm.reduce_scatter(parts_of(d_k, in.layout), own_d_k, {"d_k", 0});
  Pending v_pending = ctx.comm.reduce_scatter(parts_of(d_v, in.layout), own_d_v, {"d_v", 0});
  k_pending.wait();
  v_pending.wait();
  return finish(ctx, in, {d_q, own_d_k, own_d_v});
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t P = world.size, n = layout.count(rank), N = layout.size();
  const std::int64_t pairs = pairs_of_queries(problem, layout, rank);
  const std::int64_t gathered = n * token.kv() * (P - 1);
  return {{gathered, 2 * (P - 1), forward_flops(problem, pairs),
           N * token.kv() + n * (token.out + token.lse)},
          {gathered + (N - n) * token.acc_kv(), 4 * (P - 1), backward_flops(problem, pairs),
           N * (token.kv() + token.acc_kv()) + n * (token.lse + token.acc_q + token.acc_kv() +
                                                    storage_bytes(problem, token.q + token.kv()))}};
}

Support supports(const Problem& problem, const World&) { return softmax_only(problem); }

}  // namespace

const Algorithm kAllgather{"allgather",
                           "All-gather context parallelism",
                           "Grattafiori et al. 2024, arXiv:2407.21783",
                           "all-gather of K, V; reduce-scatter of dK, dV",
                           Family::kSoftmax,
                           Sharding::kZigzag,
                           1,
                           supports,
                           cost,
                           forward,
                           backward};

}  // namespace sp
