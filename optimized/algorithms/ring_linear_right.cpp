// Ring attention for linear attention with the right product: blocks travel as in a ring, but each
// is reduced to its state on arrival.
//
// Paper      this project, to examine the claim of arXiv:2502.07563, figure 3: what its baseline
//            would cost with the right product that LASP-2 has.
// Pattern    P-1 hops of (K, V) forward, of (Q, dO) backward, each behind the products of a block.
//            Blocks travel towards lower ranks forward, so that they arrive oldest first, and
//            towards higher ranks backward: states then accumulate as they come.
// Sharding   contiguous.
// Cost/rank  2(P-1) c hkv elements forward, (P-1) c (2 h) backward; flops linear in the length,
//            but every rank forms the states of all earlier chunks: O(N), not O(N/P).
// Memory     two blocks, one state: O(N/P).
// Invariant  After step s, `before` is the state at the end of the latest earlier block seen.
// Departs    A gradient ring would send (dK, dV) too; (Q, dO) carry the same and are complete sums.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/linear_chunk.hpp"
#include "optimized/algorithms/ring_linear.hpp"
#include "optimized/algorithms/ring_streams.hpp"

namespace sp {
namespace {

// into = decay of the visiting chunk into + what it leaves: its state, or the gradient of the state
// before it.
void accumulate(Context& ctx, const LinearChunk& chunk, const Tensor& into, const Tensor& left,
                int source) {
  const StateSpan span = chunk.span(left, source, {});
  ctx.kernels.linear_accumulate(into, {&span, 1}, chunk.terms());
}

Forward forward(Context& ctx, const Shards& in) {
  const LinearChunk chunk(ctx, in);
  const Tensor sums = chunk.sums(), before = chunk.zero_state("before");
  const Tensor room = chunk.state("state");
  KeyStream stream(ctx, in, {ctx.comm, ctx.comm, -1});
  for (int step = 0; step < ctx.comm.size(); ++step) {
    stream.post(step);
    const int source = stream.lane().origin(step);
    if (step == 0) ctx.kernels.linear_forward(chunk.block(), {}, sums, {});
    if (source < ctx.comm.rank()) {
      const KeyValue& held = stream.held();
      ctx.kernels.linear_state({{}, held.k, held.v, chunk_of(in.layout, source), chunk.terms()},
                               room);
      accumulate(ctx, chunk, before, room, source);
    }
    stream.advance(step);
  }
  ctx.kernels.linear_inter(chunk.block(), before, sums);
  return chunk.finish(sums, before, {});
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const LinearChunk chunk(ctx, in);
  const LinearGradients gradients = chunk.zero_gradients();
  const Tensor after = chunk.decays() ? chunk.state("after") : Tensor();
  const Tensor d_after = chunk.zero_state("d_after"), room = chunk.state("d_state");
  Shards queries = in;  // (Q, dO) take the places of (K, V) in the stream
  queries.k = in.q;
  queries.v = d_out;
  KeyStream stream(ctx, queries, {ctx.comm, ctx.comm, 1});
  for (int step = 0; step < ctx.comm.size(); ++step) {
    stream.post(step);
    const int source = stream.lane().origin(step);
    if (step == 0) {
      ctx.kernels.linear_d_q(chunk.block(), LinearChunk::before(saved), d_out, gradients, after);
      ctx.kernels.linear_d_kv(chunk.block(), {}, d_out, gradients, {});
    }
    if (source > ctx.comm.rank()) {
      const KeyValue& held = stream.held();
      ctx.kernels.linear_d_state({held.k, in.k, in.v, chunk_of(in.layout, source), chunk.terms()},
                                 held.v, room);
      accumulate(ctx, chunk, d_after, room, source);
    }
    stream.advance(step);
  }
  ctx.kernels.linear_d_kv_inter(chunk.block(), d_after, gradients);
  return chunk.finish(gradients, after, d_after);
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t P = world.size, N = layout.size();
  const LinearFlops f = linear_flops_of(problem, layout.count(rank));
  Cost cost;
  cost.forward.flops = f.forward + f.inter;
  cost.backward.flops = f.d_q + f.d_kv + f.d_kv_inter;
  for (int source = 0; source < P; ++source) {
    const std::int64_t state = linear_flops_of(problem, layout.count(source)).state;
    if (source < rank) cost.forward.flops += state;
    if (source > rank) cost.backward.flops += state;
  }
  // Every block passes through except the one that ends here: that of the rank it is sent to.
  const auto passed = [&](int last) { return P == 1 ? 0 : N - layout.count(last); };
  cost.forward.bytes_sent = passed(static_cast<int>((rank + P - 1) % P)) * token.kv();
  cost.backward.bytes_sent = passed(static_cast<int>((rank + 1) % P)) * (token.q + token.out);
  cost.forward.messages_sent = cost.backward.messages_sent = 2 * (P - 1);
  return cost;
}

Support supports(const Problem& problem, const World&) {
  if (const Support causal = causal_linear(problem); !causal) return causal;
  return constant_decay_only(problem);
}

}  // namespace

const Algorithm kRingLinearRight{
    .id = "ring_linear_right",
    .title = "Ring with the right product",
    .paper = "this project",
    .pattern = "K, V around the ring, right product",
    .family = Family::kLinear,
    .sharding = Sharding::kContiguous,
    .supports = supports,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
