// Example ring: blocks of keys and values travel around a ring of P ranks, one hop per step.
//
// Paper      Liu, Zaharia, Abbeel, 2023, arXiv:2310.01889, Algorithm 1.
// Pattern    P-1 hops of (K, V) forward. Backward P-1 hops again, and P hops of (dK, dV) in f32.
// Sharding   contiguous.
// Cost/rank  forward 2(P-1) c hkv elements; backward as much plus 2P c hkv in f32.
// Memory     accumulator, one partial result, two (K, V) blocks: O(N/P).
// Invariant  After step s, acc equals attention of the local queries over s+1 key blocks.
// Departs    Nothing overlaps and no block is skipped: this text is to be read.
// SPDX-License-Identifier: Apache-2.0
#include "tests/support/example_ring.hpp"

#include "optimized/algorithms/blocks.hpp"

namespace sp {
namespace {

struct Block {
  Tensor k, v;
  Block rows(std::int64_t count) const { return {k.rows(0, count), v.rows(0, count)}; }
};

// The rank whose keys this rank holds at a step: blocks move up by one rank per step.
int source_of(const Communicator& comm, int step) {
  return (comm.rank() - step + comm.size()) % comm.size();
}

// Room for the block of any rank: shards differ by a token where N does not divide.
Block allocate_block(Context& ctx, const Shards& in, DType dtype, const char* k, const char* v) {
  const std::int64_t most = largest_shard(in.layout);
  return {allocate_like(ctx, in.k, dtype, most, k), allocate_like(ctx, in.v, dtype, most, v)};
}

// Sends `held` up, receives the block of the next step into `room`. To overlap, post before the
// kernel and wait after it.
Block pass(Context& ctx, const Shards& in, const Block& held, const Block& room, int step) {
  const int P = ctx.comm.size(), up = (ctx.comm.rank() + 1) % P, down = source_of(ctx.comm, 1);
  const Block next = room.rows(in.layout.count(source_of(ctx.comm, step + 1)));
  const Label k{held.k.name(), step}, v{held.v.name(), step};
  ctx.comm.exchange({{up, held.k, k}, {up, held.v, v}}, {{down, next.k, k}, {down, next.v, v}})
      .wait();
  return next;
}

Forward forward(Context& ctx, const Shards& in) {
  const DType dtype = in.problem.dtype;
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Block rooms[] = {allocate_block(ctx, in, dtype, "k", "v"),
                         allocate_block(ctx, in, dtype, "k", "v")};
  const Partial acc = empty_partial(ctx, in);
  const Partial part = allocate_partial(ctx, in, mine.count(), acc.out.dtype());
  Block held{in.k, in.v};
  for (int step = 0; step < ctx.comm.size(); ++step) {
    const Tokens keys = in.layout.tokens(source_of(ctx.comm, step));
    ctx.kernels.attention({in.q, held.k, held.v, mine, keys, in.mask, in.problem.scale}, part);
    ctx.kernels.merge(acc, part);
    if (step + 1 < ctx.comm.size()) held = pass(ctx, in, held, rooms[step % 2], step);
  }
  return finish(ctx, in, acc);
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const DType acc = accumulator_of(in.problem.dtype), dtype = in.problem.dtype;
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Block rooms[] = {allocate_block(ctx, in, dtype, "k", "v"),
                         allocate_block(ctx, in, dtype, "k", "v")};
  const Block sums[] = {allocate_block(ctx, in, acc, "d_k", "d_v"),
                        allocate_block(ctx, in, acc, "d_k", "d_v")};
  const Tensor delta = delta_of(ctx, d_out, saved.out);
  const Tensor d_q = zeros(ctx, acc, in.q.shape(), "d_q");
  Block held{in.k, in.v}, sum = sums[1].rows(mine.count());
  ctx.kernels.fill(sum.k, 0);
  ctx.kernels.fill(sum.v, 0);
  for (int step = 0; step < ctx.comm.size(); ++step) {
    const Tokens keys = in.layout.tokens(source_of(ctx.comm, step));
    ctx.kernels.attention_backward({in.q, held.k, held.v, mine, keys, in.mask, in.problem.scale},
                                   d_out, saved.lse, delta, {d_q, sum.k, sum.v});
    if (step + 1 < ctx.comm.size()) held = pass(ctx, in, held, rooms[step % 2], step);
    // Gradients travel with their block; the last hop brings them home.
    if (ctx.comm.size() > 1) sum = pass(ctx, in, sum, sums[step % 2], step);
  }
  return finish(ctx, in, {d_q, sum.k, sum.v});
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t P = world.size, pairs = pairs_of_queries(problem, layout, rank);
  // Every block passes through except the one that ends here.
  const std::int64_t passed = (layout.size() - layout.count((rank + 1) % world.size)) * token.kv();
  const std::int64_t sums = P == 1 ? 0 : layout.size() * token.acc_kv();
  return {{passed, 2 * (P - 1), forward_flops(problem, pairs)},
          {passed + sums, 2 * (P - 1) + (P == 1 ? 0 : 2 * P), backward_flops(problem, pairs)}};
}

}  // namespace

const Algorithm kExampleRing{
    .id = "example_ring",
    .title = "Example ring",
    .paper = "Liu, Zaharia, Abbeel 2023",
    .pattern = "K, V around the ring",
    .sharding = Sharding::kContiguous,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
