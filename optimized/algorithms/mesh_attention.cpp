// Mesh-Attention: every rank computes a tile, the queries of its row over the keys of its column.
//
// Paper      Chen et al., 2025, arXiv:2512.20968: a tile of a x b blocks; here a = U, b = M.
// Pattern    P = M x U ranks, a row for each of M nodes. Queries go to the rest of the row while the
//            own ones meet the own keys; keys come down the column around a ring, M-1 exchanges, each
//            posted before the tile's step that hides it. At the end partial results go back along
//            the row, exposed. Backward the same with dO, lse, delta beside Q, partial dQ returned in
//            f32, and (dK, dV) one hop behind the keys.
// Sharding   zigzag: any two ranks' chunks have equally many causal pairs, so that tiles are balanced.
// Borders    U = 1 is a ring, and M = 1 Pass-Q, byte by byte.
// Cost/rank  forward (U-1) 2 c h elements of queries and results and (U-1) c H lse in f32,
//            2(M-1) c hkv of keys: least where U/M is about hkv/h.
// Memory     the row's queries and their sums, a ring's key blocks: O(N U/P).
// Invariant  After step s, the sums of all queries of the row are over s+1 blocks of the column.
// Departs    The paper interleaves messages of rows and columns by a greedy schedule; here a row's
//            messages come first and last. Own sums stay in f32, others travel in the storage type.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/mesh_attention.hpp"

#include <algorithm>

#include "optimized/algorithms/ring_streams.hpp"

namespace sp {
namespace {

// The rest of the row, from the next place on: their queries are kept one after the other.
struct Others {
  std::vector<int> places;
  std::vector<Tokens> tokens;
  Tokens all;
};

Others others_of(const Mesh& mesh, const Layout& layout) {
  const Layout row = layout.of(mesh.along("local"));
  Others others;
  for (int i = 1; i < row.ranks(); ++i) {
    others.places.push_back((mesh.index("local") + i) % row.ranks());
    others.tokens.push_back(row.tokens(others.places.back()));
    others.all.append(others.tokens.back());
  }
  return others;
}

Tokens column_of(const Mesh& mesh, const Layout& layout) {
  Tokens keys;
  const Ranks column = mesh.along("node");
  for (int i = 0; i < column.count; ++i) keys.append(layout.tokens(column[i]));
  return keys;
}

// f(i, rows of `all` that belong to the i-th of the others)
template <class F>
void for_each_of(const Others& others, F&& f) {
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < others.places.size(); ++i) {
    f(i, Rows{begin, begin + others.tokens[i].count()});
    begin += others.tokens[i].count();
  }
}

Pending gather(Communicator& row, const Others& others, const Queries& own, const Queries& room) {
  std::vector<Message> sends, receives;
  for_each_of(others, [&](std::size_t i, Rows rows) {
    append(sends, others.places[i], own, 0);
    append(receives, others.places[i], room.rows(rows), 0);
  });
  return row.exchange(std::move(sends), std::move(receives));
}

// Of every result the rows that saw a key of this column; what arrives was computed in the others'.
void give_back(Context& ctx, const Shards& in, const Mesh& mesh, const Others& others,
               const Results& computed, AttentionPass& own) {
  const Band& band = in.mask.band;
  const Tokens column = column_of(mesh, in.layout);
  const int step = mesh.size("node");
  std::vector<Message> sends, receives;
  std::vector<Results> returned;
  std::vector<Rows> seen;
  for_each_of(others, [&](std::size_t i, Rows rows) {
    const Rows theirs = visible_rows(band, others.tokens[i], column);
    append(sends, others.places[i],
           rows_of(computed, {rows.begin + theirs.begin, rows.begin + theirs.end}), step);
    const Mesh peer = mesh.at("local", others.places[i]);
    seen.push_back(visible_rows(band, own.queries().tokens, column_of(peer, in.layout)));
    returned.push_back(own.allocate_results(seen.back().count()));
    append(receives, others.places[i], returned.back(), step);
  });
  mesh.group(ctx.comm, "local").exchange(std::move(sends), std::move(receives)).wait();
  for (std::size_t i = 0; i < returned.size(); ++i) {
    if (!seen[i].empty()) own.merge(seen[i], returned[i]);
  }
}

KeyRing<KeyStream> compute_tile(Context& ctx, const Shards& in, AttentionPass& own) {
  const Mesh mesh = node_mesh(ctx);
  const Others others = others_of(mesh, in.layout);
  Communicator &row = mesh.group(ctx.comm, "local"), &column = mesh.group(ctx.comm, "node");
  own.open();
  Queries queries = allocate_block(ctx, own.queries(), others.all.count());
  queries.tokens = others.all;
  Pending arriving = gather(row, others, own.queries(), queries);
  AttentionPass helped(ctx, in, queries);
  KeyRing<KeyStream> ring(ctx, in,
                          KeyStream(ctx, in, {column, column}, in.layout.of(mesh.along("node"))),
                          own.backward());
  for (int step = 0; step < mesh.size("node"); ++step) {
    ring.post(step);
    const Keys keys = ring.keys(step);
    own.attend(keys);
    arriving.wait();
    helped.attend(keys);
    ring.pass(step, keys);
    ring.advance(step);
  }
  give_back(ctx, in, mesh, others, helped.results(), own);
  return ring;
}

Forward forward(Context& ctx, const Shards& in) {
  AttentionPass pass(ctx, in);
  compute_tile(ctx, in, pass);
  return pass.finish();
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  AttentionPass pass(ctx, in, saved, d_out);
  auto ring = compute_tile(ctx, in, pass);
  return pass.finish([&] { return ring.home(); });
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const Mesh mesh = node_mesh(world, rank);
  const Others others = others_of(mesh, layout);
  const Layout ring = layout.of(mesh.along("node"));
  const Tokens column = column_of(mesh, layout), mine = layout.tokens(rank);
  const Band band = band_of(problem);
  const std::int64_t pairs =
      visible_pairs(band, mine, column) + visible_pairs(band, others.all, column);
  const auto pass = [&](const Cargo& cargo, std::int64_t flops) {
    Traffic sent = key_traffic(ring, mesh.index("node"), cargo.keys);
    sent += key_gradient_traffic(ring, cargo.key_gradients);
    for (const Tokens& theirs : others.tokens) {
      sent += cargo.queries.of(mine.count());
      sent += cargo.results.of(visible_rows(band, theirs, column).count());
    }
    return PassCost{sent.bytes_sent, sent.messages_sent, flops};
  };
  return {pass(cargo_of(problem, false), forward_flops(problem, pairs)),
          pass(cargo_of(problem, true), backward_flops(problem, pairs))};
}

}  // namespace

const Algorithm kMeshAttention{
    .id = "mesh_attention",
    .title = "Mesh-Attention",
    .paper = "Chen et al. 2025, arXiv:2512.20968",
    .pattern = "Q along rows, K, V down columns, results back",
    .sharding = Sharding::kZigzag,
    .roundings = 2,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
