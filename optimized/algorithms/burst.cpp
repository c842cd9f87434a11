// BurstAttention: forward is a ring of keys and values; in backward these stay, and the queries
// rotate with all that their gradient needs.
//
// Paper      Sun, Zhao, Han et al., 2024, arXiv:2403.09347 (v4), algorithms 1 and 2.
// Pattern    Forward that of ring/contiguous. Backward P-1 exchanges of (Q, dO, lse, delta), each
//            posted before the kernel that hides it, and P-1 hops of dQ in f32, one hop behind:
//            dQ of a step is ready only when its kernel is.
// Sharding   contiguous: the paper states no balancing of causal work.
// Cost/rank  forward 2(P-1) c hkv elements; backward (P-1)(2 c h + 2 c H f32 + c h f32): with
//            multi-head attention 3 units of c h against the ring's 4, with grouped heads more.
// Memory     two query blocks, three blocks of dQ, local dK, dV: O(N/P).
// Invariant  After step s, dK and dV hold the shares of the queries of s+1 ranks.
// Departs    The owner keeps its own share of dQ and the next rank begins the sum, so P-1 hops
//            suffice; the paper's volume counts as many. dQ, dK, dV are f32 until the end. The
//            local tiling (LAO) is that of the kernels.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/burst.hpp"

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/query_stream.hpp"
#include "optimized/algorithms/ring_attention.hpp"

namespace sp {
namespace {

Forward forward(Context& ctx, const Shards& in) { return kRingContiguous.forward(ctx, in); }

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const Tokens keys = in.layout.tokens(ctx.comm.rank());
  const Tensor delta = delta_of(ctx, d_out, saved.out);
  const AttentionGradients own = zero_gradients(ctx, in);
  QueryStream queries(ctx, in, backward_cargo(in.problem).queries,
                      {{in.q, d_out, saved.lse, delta}});
  QueryGradientStream sums(ctx, in, queries);
  for (int step = 0; step < ctx.comm.size(); ++step) {
    queries.post(step);
    const Tokens rows = in.layout.tokens(queries.owner(step));
    const Tensor share = step == 0 ? own.d_q : sums.fresh(step);
    if (any_visible(in.mask.band, rows, keys)) {
      const std::vector<Tensor>& held = queries.held().tensors;
      ctx.kernels.attention_backward({held[0], in.k, in.v, rows, keys, in.mask, in.problem.scale},
                                     held[1], held[2], held[3], {share, own.d_k, own.d_v});
    }
    if (step > 0) sums.pass(step, share);
    queries.advance(step);
  }
  if (ctx.comm.size() > 1) ctx.kernels.add(own.d_q, sums.home());
  return finish(ctx, in, own);
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const Fields queries = backward_cargo(problem).queries;
  const std::int64_t n = layout.count(rank), P = world.size;
  const std::int64_t row = row_bytes(queries, problem.shape.B);
  // Sums are begun by the next rank and come home from the one before: none of the own passes here.
  const std::int64_t sums = (layout.size() - n) * token.acc_q;
  const std::int64_t fields = static_cast<std::int64_t>(queries.size());
  return {kRingContiguous.cost(problem, layout, world, rank).forward,
          {query_stream_bytes(layout, rank, row) + sums, (fields + 1) * (P - 1),
           backward_flops(problem, pairs_of_keys(problem, layout, rank)),
           n * (token.lse + token.acc_q + token.acc_kv() +
                storage_bytes(problem, token.q + token.kv())) +
               query_stream_memory(layout, row) + query_gradient_memory(layout, token.acc_q)}};
}

Support supports(const Problem& problem, const World&) { return softmax_only(problem); }

}  // namespace

const Algorithm kBurst{"burst",
                       "BurstAttention",
                       "Sun et al. 2024, arXiv:2403.09347",
                       "K, V around the ring; in backward Q, dO, dQ",
                       Family::kSoftmax,
                       Sharding::kContiguous,
                       1,
                       supports,
                       cost,
                       forward,
                       backward};

}  // namespace sp
