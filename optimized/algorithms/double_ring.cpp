// Double ring: Ring Attention whose blocks go around each node before they go to the next one.
//
// Paper      Gu et al. (LoongTrain), 2024, arXiv:2406.18485; schedule from its code, InternEvo.
// Pattern    At the start of an outer step every rank sends the (K, V) it holds to the rank of the
//            same place in the next node, on a channel of its own; U inner ring steps hide it.
// Sharding   zigzag, as published.
// Cost/rank  2(P-1) c hkv elements forward, as a ring: M(U-1) blocks inside the M nodes of U ranks
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

#include "optimized/algorithms/ring_streams.hpp"

namespace sp {
namespace {

// The blocks of keys as they come by: P steps, of which every U-th one ends an outer step.
class DoubleKeyStream {
 public:
  DoubleKeyStream(Context& ctx, const Shards& in) : DoubleKeyStream(ctx, in, node_mesh(ctx)) {}

  void post(int step) {
    if (step % U_ == 0) {
      outer_.post(step / U_);
      const Mesh source = mesh_.at("node", outer_.lane().origin(step / U_));
      inner_.restart(outer_.held(), layout_.of(source.along("local")));
    }
    inner_.post(step % U_);
  }
  void advance(int step) {
    inner_.advance(step % U_);
    if ((step + 1) % U_ == 0) outer_.advance(step / U_);
  }
  const KeyValue& held() const { return inner_.held(); }
  const Lane& lane() const { return all_; }  // all steps in one

 private:
  DoubleKeyStream(Context& ctx, const Shards& in, const Mesh& mesh)
      : mesh_(mesh),
        layout_(in.layout),
        U_(mesh.size("local")),
        outer_(stream_along(ctx, in, "node")),
        inner_(stream_along(ctx, in, "local")),
        all_(ctx, in, {.k_comm = ctx.comm, .v_comm = ctx.comm, .inner = U_}, in.layout) {}
  KeyStream stream_along(Context& ctx, const Shards& in, const char* axis) const {
    Communicator& comm = mesh_.group(ctx.comm, axis, "keys");  // never that of gradients
    return {ctx, in, {comm, comm}, in.layout.of(mesh_.along(axis))};
  }

  Mesh mesh_;
  Layout layout_;
  int U_;
  KeyStream outer_, inner_;
  Lane all_;
};

KeyRing<DoubleKeyStream> go_round(Context& ctx, const Shards& in, AttentionPass& pass) {
  KeyRing<DoubleKeyStream> ring(ctx, in, DoubleKeyStream(ctx, in), pass.backward());
  sp::go_round(pass, std::span(&ring, 1), ctx.comm.size());
  return ring;
}

Forward forward(Context& ctx, const Shards& in) {
  AttentionPass pass(ctx, in);
  go_round(ctx, in, pass);
  return pass.finish();
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  AttentionPass pass(ctx, in, saved, d_out);
  auto ring = go_round(ctx, in, pass);
  return pass.finish([&] { return ring.home(); });
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t P = world.size, pairs = pairs_of_queries(problem, layout, rank);
  const Mesh mesh = node_mesh(world, rank);
  const int U = mesh.size("local"), M = mesh.size("node");
  Cost cost;
  for (int source = 0; P > 1 && source < P; ++source) {
    const std::int64_t rows = layout.count(source);
    // Blocks end inside a node at the place before theirs, between nodes at the node before theirs.
    const Mesh from = node_mesh(world, source);
    const bool inside = from.index("local") != (mesh.index("local") + 1) % U;
    const bool between = from.index("local") == mesh.index("local") &&
                         from.index("node") != (mesh.index("node") + 1) % M;
    cost.forward.bytes_sent += ((inside ? 1 : 0) + (between ? 1 : 0)) * rows * token.kv();
    cost.backward.bytes_sent += rows * token.acc_kv();
  }
  cost.backward.bytes_sent += cost.forward.bytes_sent;
  cost.forward.messages_sent = 2 * (P - 1);
  cost.backward.messages_sent = 2 * (P - 1) + (P == 1 ? 0 : 2 * P);
  cost.forward.flops = forward_flops(problem, pairs);
  cost.backward.flops = backward_flops(problem, pairs);
  return cost;
}

}  // namespace

const Algorithm kDoubleRing{
    .id = "double_ring",
    .title = "Double Ring Attention",
    .paper = "Gu et al. 2024, arXiv:2406.18485",
    .pattern = "K, V around rings inside nodes and between them",
    .sharding = Sharding::kZigzag,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
