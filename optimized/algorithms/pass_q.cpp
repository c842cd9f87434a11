// Pass-Q: keys and values stay, the queries travel around a ring, and all partial results are
// returned together at the end.
//
// Paper      Yang et al., 2024, arXiv:2411.01783, "Context Parallelism for Scalable Million-Token
//            Inference".
// Pattern    P-1 hops of Q, each posted before the block of attention that hides it; then one
//            all-to-all of (out, lse), exposed. TokenRing spreads these returns over the loop.
// Sharding   zigzag.
// Cost/rank  forward (P-1) c h elements of Q, as many of out, and (P-1) c H lse in f32; backward
//            (P-1)(2 c h + 2 c H f32) around and (P-1) c h f32 back.
// Memory     all partial results, computed and returned: 2(P-1) c h elements, O(N).
// Invariant  After step s, the results for the queries of s+1 ranks are complete for the own keys.
// Departs    The own block stays in f32. Messages are as long as the shards, not padded; of results
//            only rows return that can see a key. The paper is about inference: backward is this
//            project's design (dO, lse and delta travel with Q, dK and dV stay, partial dQ return
//            together in f32), and the choice between pass-KV and pass-Q is left to the caller.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/pass_q.hpp"

#include <algorithm>

#include "optimized/algorithms/query_stream.hpp"

namespace sp {
namespace {

// Rows of the queries of `owner` that can see the keys of `rank`, where these differ.
Rows seeing(const Band& band, const Layout& layout, int owner, int rank) {
  if (owner == rank) return {};
  return visible_rows(band, layout.tokens(owner), layout.tokens(rank));
}

// All results at once, each to the owner of its queries, which merges what arrives.
void return_all(Context& ctx, const Shards& in, AttentionPass& pass,
                const std::vector<Results>& computed) {
  const int P = ctx.comm.size(), rank = ctx.comm.rank();
  std::vector<Rows> rows;
  std::vector<Results> returned;
  for (int peer = 0; peer < P; ++peer) {
    rows.push_back(seeing(in.mask.band, in.layout, rank, peer));
    returned.push_back(pass.allocate_results(rows.back().count()));
  }
  std::vector<Pending> pending;
  for (const auto& [name, tensor] : Results::fields()) {
    if (!(returned[0].*tensor).defined()) continue;
    std::vector<Tensor> sends, receives;
    for (const Results& results : computed) sends.push_back(results.*tensor);
    for (const Results& results : returned) receives.push_back(results.*tensor);
    pending.push_back(ctx.comm.all_to_all(std::move(sends), std::move(receives), {name, P - 1}));
  }
  for (Pending& each : pending) each.wait();
  for (std::size_t peer = 0; peer < returned.size(); ++peer) {
    if (!rows[peer].empty()) pass.merge(rows[peer], returned[peer]);
  }
}

void pass_queries(Context& ctx, const Shards& in, AttentionPass& pass, const Keys& keys) {
  const int P = ctx.comm.size(), rank = ctx.comm.rank();
  std::vector<Results> computed(static_cast<std::size_t>(P));  // by owner
  QueryStream queries(ctx, in, pass.queries());
  for (int step = 0; step < P; ++step) {
    queries.post(step);
    const int owner = queries.owner(step);
    const Rows rows = seeing(in.mask.band, in.layout, owner, rank);
    Results& result = computed[static_cast<std::size_t>(owner)];
    result = pass.allocate_results(rows.count());
    if (owner == rank) pass.begin(keys);
    if (!rows.empty()) pass.serve(queries.held().rows(rows), keys, result);
    queries.advance(step);
  }
  return_all(ctx, in, pass, computed);
}

Forward forward(Context& ctx, const Shards& in) {
  AttentionPass pass(ctx, in);
  pass_queries(ctx, in, pass, pass.keys());
  return pass.finish();
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  AttentionPass pass(ctx, in, saved, d_out);
  const Keys keys = pass.keys();
  pass_queries(ctx, in, pass, keys);
  return pass.finish(keys.d_k, keys.d_v);
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const std::int64_t P = world.size, pairs = pairs_of_keys(problem, layout, rank);
  std::int64_t returned = 0;  // rows
  for (int owner = 0; owner < world.size; ++owner)
    returned += seeing(band_of(problem), layout, owner, rank).count();
  const auto pass = [&](const Cargo& cargo, std::int64_t flops) {
    return PassCost{
        query_stream_bytes(layout, rank, cargo.queries.bytes) + returned * cargo.results.bytes,
        (cargo.queries.messages + cargo.results.messages) * (P - 1), flops};
  };
  return {pass(cargo_of(problem, false), forward_flops(problem, pairs)),
          pass(cargo_of(problem, true), backward_flops(problem, pairs))};
}

}  // namespace

const Algorithm kPassQ{
    .id = "pass_q",
    .title = "Pass-Q context parallelism",
    .paper = "Yang et al. 2024, arXiv:2411.01783",
    .pattern = "Q around the ring, results back together",
    .sharding = Sharding::kZigzag,
    .roundings = 2,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
