// Double ring: Ring Attention whose blocks go around each node before they go to the next one.
//
// Paper      Gu et al. (LoongTrain), 2024, arXiv:2406.18485; schedule from its code, InternEvo.
// Pattern    At the start of an outer step every rank sends the (K, V) it holds to the rank of the
//            same index in the next node, on a channel of its own; R inner ring steps hide it.
// Sharding   zigzag, as published.
// Cost/rank  2(P-1) c hkv elements forward, as a ring: M(R-1) blocks inside the M nodes of R ranks
//            and M-1 between them. Backward as much plus 2P c hkv in f32.
// Memory     as a ring, with two inner and two outer (K, V) blocks: O(N/P).
// Invariant  Before outer step o, a rank holds the block of the same index of the o-th node before
//            its own.
// Departs    A gradient leaves a node straight from the rank that was last to add to it, to the
//            next index of the next node: P hops where the code, which first takes it home to its
//            index, makes P + M. Sums stay in f32; the code rounds them to 16 bit at every node.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/double_ring.hpp"

#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/ring_streams.hpp"

namespace sp {
namespace {

// The blocks of keys as they come by: P steps, of which every R-th one ends an outer step.
class DoubleKeyStream {
 public:
  DoubleKeyStream(Context& ctx, const Shards& in)
      : R_(ctx.node_size),
        outer_(ctx, in, outer_ring(ctx)),
        inner_(ctx, in, inner_ring(ctx)),
        all_(ctx, in, {ctx.comm, ctx.comm, 1, 0, 1, 1, 0, R_}) {}

  void post(int step) {
    if (step % R_ == 0) {
      outer_.post(step / R_);
      inner_.restart(outer_.held(), outer_.lane().origin(step / R_) * R_);
    }
    inner_.post(step % R_);
  }
  void advance(int step) {
    inner_.advance(step % R_);
    if ((step + 1) % R_ == 0) outer_.advance(step / R_);
  }
  const KeyValue& held() const { return inner_.held(); }
  const Lane& lane() const { return all_; }  // all steps in one

 private:
  static Ring outer_ring(Context& ctx) {
    Communicator& comm = index_group(ctx, "double_ring");
    return {comm, comm, 1, 0, 1, ctx.node_size, ctx.comm.rank() % ctx.node_size};
  }
  static Ring inner_ring(Context& ctx) {
    Communicator& comm = node_group(ctx, "double_ring");
    return {comm, comm};
  }

  int R_;
  KeyStream outer_, inner_;
  Lane all_;
};

Forward forward(Context& ctx, const Shards& in) {
  const Tokens queries = in.layout.tokens(ctx.comm.rank());
  const Partial acc = empty_partial(ctx, in);
  const Partial part = allocate_partial(ctx, in, queries.count(), acc.out.dtype());
  DoubleKeyStream stream(ctx, in);
  for (int step = 0; step < ctx.comm.size(); ++step) {
    stream.post(step);
    const Tokens keys = stream.lane().tokens(step);
    if (any_visible(in.mask.band, queries, keys)) {
      ctx.kernels.attention(
          {in.q, stream.held().k, stream.held().v, queries, keys, in.mask, in.problem.scale}, part);
      ctx.kernels.merge(acc, part);
    }
    stream.advance(step);
  }
  return finish(ctx, in, acc);
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const DType dtype = in.problem.dtype;
  const Tokens queries = in.layout.tokens(ctx.comm.rank());
  const Tensor delta = delta_of(ctx, d_out, saved.out);
  const Tensor d_q = zeros(ctx, delta.dtype(), in.q.shape(), "d_q");
  DoubleKeyStream stream(ctx, in);
  GradientStream sums(ctx, in, stream.lane());
  for (int step = 0; step < ctx.comm.size(); ++step) {
    stream.post(step);
    const Tokens keys = stream.lane().tokens(step);
    const KeyValue block = sums.fresh(step);
    if (any_visible(in.mask.band, queries, keys)) {
      ctx.kernels.attention_backward(
          {in.q, stream.held().k, stream.held().v, queries, keys, in.mask, in.problem.scale}, d_out,
          saved.lse, delta, {d_q, block.k, block.v});
    }
    sums.pass(step, block);
    stream.advance(step);
  }
  return {to_storage(ctx, d_q, dtype, "d_q"), to_storage(ctx, sums.home().k, dtype, "d_k"),
          to_storage(ctx, sums.home().v, dtype, "d_v")};
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t n = layout.count(rank), P = world.size, most = largest_shard(layout);
  const int R = world.node_size, M = world.size / R, node = rank / R, index = rank % R;
  const std::int64_t pairs = pairs_of_queries(problem, layout, rank);
  Cost cost;
  for (int source = 0; P > 1 && source < P; ++source) {
    const std::int64_t rows = layout.count(source);
    // Blocks end inside a node at the index before theirs, between nodes at the node before theirs.
    const bool inside = source % R != (index + 1) % R;
    const bool between = source % R == index && source / R != (node + 1) % M;
    cost.forward.bytes_sent += ((inside ? 1 : 0) + (between ? 1 : 0)) * rows * token.kv();
    cost.backward.bytes_sent += rows * token.acc_kv();
  }
  cost.backward.bytes_sent += cost.forward.bytes_sent;
  cost.forward.messages_sent = 2 * (P - 1);
  cost.backward.messages_sent = 2 * (P - 1) + (P == 1 ? 0 : 2 * P);
  cost.forward.flops = forward_flops(problem, pairs);
  cost.backward.flops = backward_flops(problem, pairs);
  const std::int64_t buffers = (std::min(R - 1, 2) + std::min(M - 1, 2)) * most * token.kv();
  const std::int64_t blocks = (P == 1 ? 1 : 3) * most * token.acc_kv();
  cost.forward.peak_bytes =
      n * (2 * (token.acc_out + token.lse) + storage_bytes(problem, token.out)) + buffers;
  cost.backward.peak_bytes =
      n * (token.lse + token.acc_q + storage_bytes(problem, token.q + token.kv())) + buffers +
      blocks;
  return cost;
}

Support supports(const Problem& problem, const World&) { return softmax_only(problem); }

}  // namespace

const Algorithm kDoubleRing{"double_ring",
                            "Double Ring Attention",
                            "Gu et al. 2024, arXiv:2406.18485",
                            "K, V around rings inside nodes and between them",
                            Family::kSoftmax,
                            Sharding::kZigzag,
                            1,
                            supports,
                            cost,
                            forward,
                            backward};

}  // namespace sp
