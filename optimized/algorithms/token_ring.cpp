// TokenRing: exact softmax attention in which K and V stay and the queries travel; partial results
// return to their owner.
//
// Paper      Wang, Liu, Li, Jiang, 2024, arXiv:2412.20501; schedule from its code (both of its
//            variants move queries one way; here always to rank - 1, which is the zigzag code's
//            direction and the other one relabelled).
// Pattern    P-1 hops of Q one way, P-1 direct returns of (out, lse) the other way, on two
//            channels; one exposed return.
// Sharding   zigzag (causal trimming halves the rows after the wrap) or contiguous.
// Variants   token_ring_hybrid: K and V rotate between nodes among ranks of the same place, each
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

#include <algorithm>

#include "optimized/algorithms/query_sweep.hpp"
#include "optimized/algorithms/ring_streams.hpp"

namespace sp {
namespace {

// One sweep over all ranks, or one per node and outer step. Flat: one node of all ranks.
enum class Reach : std::uint8_t { kFlat, kHybrid };

template <Reach kReach>
Mesh mesh_of(int ranks, int node_size, int rank) {
  return node_mesh({ranks, kReach == Reach::kFlat ? ranks : node_size}, rank);
}

// The sweep of one outer step: this node's queries against the keys that came from `source_node`.
Route route_of(const Mesh& mesh, const Problem& problem, const Layout& layout, int source_node) {
  return {band_of(problem), layout.of(mesh.along("local")),
          layout.of(mesh.at("node", source_node).along("local"))};
}

// Keys rotate between nodes, among ranks of one place; every outer step holds one sweep inside.
template <Reach kReach>
KeyRing<KeyStream> sweep_all(Context& ctx, const Shards& in, AttentionPass& pass) {
  const Mesh mesh = mesh_of<kReach>(ctx.comm.size(), ctx.node_size, ctx.comm.rank());
  Communicator& forth = mesh.group(ctx.comm, "local");
  Communicator& back = mesh.group(ctx.comm, "local", "back");
  Communicator& across = mesh.group(ctx.comm, "node");
  const SweepBuffers buffers =
      allocate_buffers(ctx, pass, mesh.size("local"), largest_shard(in.layout));
  KeyRing<KeyStream> ring(ctx, in,
                          KeyStream(ctx, in, {across, across}, in.layout.of(mesh.along("node"))),
                          pass.backward());
  pass.open();
  for (int step = 0; step < mesh.size("node"); ++step) {
    ring.post(step);
    const Keys keys = ring.keys(step);
    sweep(forth, back, route_of(mesh, in.problem, in.layout, ring.lane().origin(step)), pass, keys,
          buffers);
    ring.pass(step, keys);
    ring.advance(step);
  }
  return ring;
}

template <Reach kReach>
Forward forward(Context& ctx, const Shards& in) {
  AttentionPass pass(ctx, in);
  sweep_all<kReach>(ctx, in, pass);
  return pass.finish();
}

template <Reach kReach>
Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  AttentionPass pass(ctx, in, saved, d_out);
  auto ring = sweep_all<kReach>(ctx, in, pass);
  return pass.finish([&] { return ring.home(); });
}

template <Reach kReach>
Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const Mesh mesh = mesh_of<kReach>(world.size, world.node_size, rank);
  const int nodes = mesh.size("node"), places = mesh.size("local"), place = mesh.index("local");
  const Cargo forth = cargo_of(problem, false), back = cargo_of(problem, true);
  Traffic forward_traffic, backward_traffic;
  std::int64_t pairs = 0;
  for (int node = 0; node < nodes; ++node) {
    const Route route = route_of(mesh, problem, layout, node);
    forward_traffic += sweep_traffic(route, forth, place);
    backward_traffic += sweep_traffic(route, back, place);
    for (int owner = 0; owner < places; ++owner)
      pairs += visible_pairs(band_of(problem), route.queries(owner), route.keys(place));
  }
  const Layout across = layout.of(mesh.along("node"));
  forward_traffic += key_traffic(across, mesh.index("node"), forth.keys);
  backward_traffic += key_traffic(across, mesh.index("node"), back.keys);
  backward_traffic += key_gradient_traffic(across, back.key_gradients);
  return {
      {forward_traffic.bytes_sent, forward_traffic.messages_sent, forward_flops(problem, pairs)},
      {backward_traffic.bytes_sent, backward_traffic.messages_sent,
       backward_flops(problem, pairs)}};
}

template <Reach kReach>
constexpr Algorithm describe(const char* id, const char* title, const char* pattern,
                             Sharding sharding) {
  return {
      .id = id,
      .title = title,
      .paper = "Wang, Liu, Li, Jiang 2024, arXiv:2412.20501",
      .pattern = pattern,
      .sharding = sharding,
      .roundings = 2,
      .cost = cost<kReach>,
      .forward = forward<kReach>,
      .backward = backward<kReach>,
  };
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
