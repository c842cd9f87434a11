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

#include "optimized/algorithms/query_stream.hpp"
#include "optimized/algorithms/ring_attention.hpp"

namespace sp {
namespace {

Forward forward(Context& ctx, const Shards& in) { return kRingContiguous.forward(ctx, in); }

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  AttentionPass pass(ctx, in, saved, d_out);
  const Keys keys = pass.keys();
  QueryStream queries(ctx, in, pass.queries());
  QueryGradientStream sums(ctx, in, queries);
  for (int step = 0; step < ctx.comm.size(); ++step) {
    queries.post(step);
    if (step == 0) {
      pass.attend(keys);
    } else {
      const Tensor share = sums.fresh(step);
      if (pass.sees(queries.held(), keys)) pass.attend(queries.held(), keys, {.d_q = share});
      sums.pass(step, share);
    }
    queries.advance(step);
  }
  if (ctx.comm.size() > 1) pass.merge({0, in.q.extent(0)}, {.d_q = sums.home()});
  return pass.finish(keys.d_k, keys.d_v);
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const Freight queries = cargo_of(problem, true).queries;
  // Sums are begun by the next rank and come home from the one before: none of the own passes here.
  const std::int64_t sums = (layout.size() - layout.count(rank)) * TokenBytes(problem).acc_q;
  return {kRingContiguous.cost(problem, layout, world, rank).forward,
          {query_stream_bytes(layout, rank, queries.bytes) + sums,
           (queries.messages + 1) * (world.size - 1),
           backward_flops(problem, pairs_of_keys(problem, layout, rank))}};
}

}  // namespace

const Algorithm kBurst{
    .id = "burst",
    .title = "BurstAttention",
    .paper = "Sun et al. 2024, arXiv:2403.09347",
    .pattern = "K, V around the ring; in backward Q, dO, dQ",
    .sharding = Sharding::kContiguous,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
