// TokenRing: exact softmax attention in which K and V stay and the queries travel; partial results
// return to their owner.
//
// Paper      Wang, Liu, Li, Jiang, 2024, arXiv:2412.20501; schedule from its code (both of its
//            variants move queries one way; here always to rank - 1, which is the zigzag code's
//            direction and the other one relabelled).
// Pattern    P-1 hops of Q one way, P-1 direct returns of (out, lse) the other way, on two
//            channels; one exposed return.
// Sharding   zigzag (causal trimming halves the rows after the wrap) or contiguous.
// Variants   token_ring_hybrid: K and V rotate between nodes among ranks of the same index, each
//            outer step holds one sweep inside the node.
// Cost/rank  forward (P-1) c h elements of Q, as many of out, and (P-1) c H lse in f32; zigzag
//            causal: on average 3/4.
// Memory     accumulator, two query blocks, two results, one returned result: O(N/P).
// Invariant  After step s, acc holds the local queries over the keys of the ranks whose returns
//            have been merged.
// Departs    The own block stays in f32; partial results travel in the storage type, as in the
//            paper's code. The paper's non-causal code masks only the local block; here every block
//            is masked by positions. Rows that no later stop can see do not travel. The backward
//            pass is this project's design, not the paper's: dO, lse and delta travel with Q, dK
//            and dV stay, partial dQ return in f32: (P-1)(2 c h + 2 c H f32) one way, (P-1) c h f32
//            back.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/token_ring.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/query_sweep.hpp"
#include "optimized/algorithms/ring_streams.hpp"

namespace sp {
namespace {

// One sweep over all ranks, or one per node and outer step.
enum class Reach : std::uint8_t { kFlat, kHybrid };

// Ranks are node * size + index. Flat: one node of all ranks.
struct Mesh {
  int size, nodes, node, index;
  Mesh(Reach reach, int ranks, int node_size, int rank)
      : size(reach == Reach::kFlat ? ranks : node_size),
        nodes(ranks / size),
        node(rank / size),
        index(rank % size) {}
};

// The sweep of one outer step: this node's queries against the keys that came from `source_node`.
Route route_of(const Mesh& mesh, const Problem& problem, const Layout& layout, int source_node) {
  std::vector<Tokens> queries, keys;
  for (int index = 0; index < mesh.size; ++index) {
    queries.push_back(layout.tokens(mesh.node * mesh.size + index));
    keys.push_back(layout.tokens(source_node * mesh.size + index));
  }
  return {band_of(problem), std::move(queries), std::move(keys)};
}

// The communicators of a mesh: inside the node on two channels, and across nodes.
struct Channels {
  Communicator& forth;
  Communicator& back;
  Ring across;
  Channels(Context& ctx, const Mesh& mesh)
      : forth(mesh.nodes == 1 ? ctx.comm : ctx.comm.group(name("node", mesh), mesh.node)),
        back(forth.group("token_ring back", 0)),
        across(ring_across(ctx.comm.group(name("across", mesh), mesh.index), mesh)) {}

 private:
  // A group's name stands for its partition of the ranks, so the mesh is part of it.
  static std::string name(const char* what, const Mesh& mesh) {
    return fmt::format("token_ring {} {}x{}", what, mesh.nodes, mesh.size);
  }
  static Ring ring_across(Communicator& comm, const Mesh& mesh) {
    return {comm, comm, 1, 0, 1, mesh.size, mesh.index};
  }
};

template <Reach kReach>
Forward forward(Context& ctx, const Shards& in) {
  const Mesh mesh(kReach, ctx.comm.size(), ctx.node_size, ctx.comm.rank());
  const Channels channels(ctx, mesh);
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Cargo cargo = forward_cargo(in.problem);
  const Partial acc = empty_partial(ctx, in);
  const Partial own = allocate_partial(ctx, in, mine.count(), acc.out.dtype());
  const SweepBuffers buffers = allocate_buffers(ctx, cargo, in.problem.shape.B, mesh.size,
                                                largest_shard(in.layout), mine.count());
  KeyStream keys(ctx, in, channels.across);
  for (int step = 0; step < mesh.nodes; ++step) {
    keys.post(step);
    const Route route = route_of(mesh, in.problem, in.layout, keys.lane().origin(step));
    const Tokens& held = route.keys(mesh.index);
    const auto attend = [&](const Tensor& q, const Tokens& q_tokens, const Partial& result) {
      ctx.kernels.attention(
          {q, keys.held().k, keys.held().v, q_tokens, held, in.mask, in.problem.scale}, result);
    };
    sweep(
        channels.forth, channels.back, route, cargo, {{in.q}}, buffers,
        [&] {
          if (!any_visible(in.mask.band, mine, held)) return;
          attend(in.q, mine, own);
          ctx.kernels.merge(acc, own);
        },
        [&](int owner, Rows rows, const Bundle& travelling, const Bundle& result) {
          attend(travelling.tensors[0], route.queries(owner).slice(rows.begin, rows.end),
                 {result.tensors[0], result.tensors[1]});
        },
        [&](Rows rows, const Bundle& result) {
          ctx.kernels.merge(acc.rows(rows.begin, rows.end), {result.tensors[0], result.tensors[1]});
        });
    keys.advance(step);
  }
  return finish(ctx, in, acc);
}

template <Reach kReach>
Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const Mesh mesh(kReach, ctx.comm.size(), ctx.node_size, ctx.comm.rank());
  const Channels channels(ctx, mesh);
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Cargo cargo = backward_cargo(in.problem);
  const Tensor delta = delta_of(ctx, d_out, saved.out);
  const Tensor d_q = zeros(ctx, delta.dtype(), in.q.shape(), "d_q");
  const SweepBuffers buffers = allocate_buffers(ctx, cargo, in.problem.shape.B, mesh.size,
                                                largest_shard(in.layout), mine.count());
  KeyStream keys(ctx, in, channels.across);
  GradientStream sums(ctx, in, keys.lane());
  for (int step = 0; step < mesh.nodes; ++step) {
    keys.post(step);
    const Route route = route_of(mesh, in.problem, in.layout, keys.lane().origin(step));
    const Tokens& held = route.keys(mesh.index);
    const KeyValue share = sums.fresh(step);
    const auto attend = [&](const Bundle& row, const Tokens& q_tokens, const Tensor& d_rows) {
      ctx.kernels.attention_backward(
          {row.tensors[0], keys.held().k, keys.held().v, q_tokens, held, in.mask, in.problem.scale},
          row.tensors[1], row.tensors[2], row.tensors[3], {d_rows, share.k, share.v});
    };
    const Bundle own{{in.q, d_out, saved.lse, delta}};
    sweep(
        channels.forth, channels.back, route, cargo, own, buffers,
        [&] {
          if (any_visible(in.mask.band, mine, held)) attend(own, mine, d_q);
        },
        [&](int owner, Rows rows, const Bundle& travelling, const Bundle& result) {
          ctx.kernels.fill(result.tensors[0], 0);
          attend(travelling, route.queries(owner).slice(rows.begin, rows.end), result.tensors[0]);
        },
        [&](Rows rows, const Bundle& result) {
          ctx.kernels.add(d_q.rows(rows.begin, rows.end), result.tensors[0]);
        });
    sums.pass(step, share);
    keys.advance(step);
  }
  const DType dtype = in.problem.dtype;
  return {to_storage(ctx, d_q, dtype, "d_q"),
          to_storage(ctx, sums.home().k, dtype, "d_k"),
          to_storage(ctx, sums.home().v, dtype, "d_v"),
          {},
          {}};
}

template <Reach kReach>
Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const Mesh mesh(kReach, world.size, world.node_size, rank);
  const TokenBytes token(problem);
  const Cargo forth = forward_cargo(problem), back = backward_cargo(problem);
  const std::int64_t B = problem.shape.B, n = layout.count(rank), most = largest_shard(layout);
  Traffic forward_traffic, backward_traffic;
  std::int64_t pairs = 0;
  for (int node = 0; node < mesh.nodes; ++node) {
    const Route route = route_of(mesh, problem, layout, node);
    forward_traffic += sweep_traffic(route, forth, B, mesh.index);
    backward_traffic += sweep_traffic(route, back, B, mesh.index);
    for (int owner = 0; owner < mesh.size; ++owner) {
      pairs += visible_pairs(band_of(problem), route.queries(owner), route.keys(mesh.index));
    }
    if (mesh.nodes == 1) break;
    // The outer ring passes on every block but the one that ends here; gradients go all the way
    // home.
    const std::int64_t rows = route.keys(mesh.index).count();
    if (node != (mesh.node + 1) % mesh.nodes) {
      forward_traffic += {rows * token.kv(), 2};
      backward_traffic += {rows * token.kv(), 2};
    }
    backward_traffic += {rows * token.acc_kv(), 2};
  }
  const std::int64_t key_buffers = std::min(mesh.nodes - 1, 2) * most * token.kv();
  const std::int64_t gradient_blocks = (mesh.nodes == 1 ? 1 : 3) * most * token.acc_kv();
  return {
      {forward_traffic.bytes_sent, forward_traffic.messages_sent, forward_flops(problem, pairs),
       n * (2 * (token.acc_out + token.lse) + storage_bytes(problem, token.out)) + key_buffers +
           buffer_bytes(forth, B, mesh.size, most, n)},
      {backward_traffic.bytes_sent, backward_traffic.messages_sent, backward_flops(problem, pairs),
       n * (token.lse + token.acc_q + storage_bytes(problem, token.q + token.kv())) + key_buffers +
           gradient_blocks + buffer_bytes(back, B, mesh.size, most, n)}};
}

Support supports(const Problem& problem, const World&) { return softmax_only(problem); }

template <Reach kReach>
constexpr Algorithm describe(const char* id, const char* title, const char* pattern,
                             Sharding sharding) {
  return {id,
          title,
          "Wang, Liu, Li, Jiang 2024, arXiv:2412.20501",
          pattern,
          Family::kSoftmax,
          sharding,
          2,
          supports,
          cost<kReach>,
          forward<kReach>,
          backward<kReach>};
}

}  // namespace

const Algorithm kTokenRingContiguous = describe<Reach::kFlat>(
    "token_ring/contiguous", "TokenRing", "Q around, results straight back", Sharding::kContiguous);
const Algorithm kTokenRingZigzag = describe<Reach::kFlat>(
    "token_ring/zigzag", "TokenRing, zigzag", "Q around, results straight back", Sharding::kZigzag);
const Algorithm kTokenRingHybrid =
    describe<Reach::kHybrid>("token_ring_hybrid", "TokenRing across nodes",
                             "K, V between nodes, TokenRing inside", Sharding::kZigzag);

}  // namespace sp
