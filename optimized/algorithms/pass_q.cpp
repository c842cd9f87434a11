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
#include <functional>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/query_stream.hpp"

namespace sp {
namespace {

// Rows of the queries of `owner` that can see the keys of `rank`.
Rows seeing(const Band& band, const Layout& layout, int owner, int rank) {
  return visible_rows(band, layout.tokens(owner), layout.tokens(rank));
}

// compute(positions, queries, result for them), for other ranks' queries
using Compute = std::function<void(const Tokens&, const Bundle& queries, const Bundle& result)>;
// merge(rows of the own queries, result for them)
using Merge = std::function<void(Rows rows, const Bundle& result)>;

// `compute_own` runs while the first queries travel.
void pass_queries(Context& ctx, const Shards& in, const Cargo& cargo, const Bundle& own,
                  const std::function<void()>& compute_own, const Compute& compute,
                  const Merge& merge) {
  const int P = ctx.comm.size(), rank = ctx.comm.rank();
  const auto allocate_results = [&](std::int64_t rows) {
    return allocate_bundle(ctx, cargo.results, in.problem.shape.B, rows);
  };
  std::vector<Bundle> computed(static_cast<std::size_t>(P)), returned;  // by peer
  QueryStream queries(ctx, in, cargo.queries, own);
  for (int step = 0; step < P; ++step) {
    queries.post(step);
    const int owner = queries.owner(step);
    const Rows rows = owner == rank ? Rows{} : seeing(in.mask.band, in.layout, owner, rank);
    Bundle& result = computed[static_cast<std::size_t>(owner)] = allocate_results(rows.count());
    if (owner == rank) {
      compute_own();
    } else if (!rows.empty()) {
      compute(in.layout.tokens(owner).slice(rows.begin, rows.end),
              queries.held().rows(rows.begin, rows.end), result);
    }
    queries.advance(step);
  }
  std::vector<Rows> rows;
  for (int peer = 0; peer < P; ++peer) {
    rows.push_back(peer == rank ? Rows{} : seeing(in.mask.band, in.layout, rank, peer));
    returned.push_back(allocate_results(rows.back().count()));
  }
  std::vector<Pending> pending;
  for (std::size_t field = 0; field < cargo.results.size(); ++field) {
    std::vector<Tensor> sends, receives;
    for (const Bundle& bundle : computed) sends.push_back(bundle.tensors[field]);
    for (const Bundle& bundle : returned) receives.push_back(bundle.tensors[field]);
    pending.push_back(ctx.comm.all_to_all(std::move(sends), std::move(receives),
                                          {cargo.results[field].name, P - 1}));
  }
  for (Pending& each : pending) each.wait();
  for (std::size_t peer = 0; peer < returned.size(); ++peer) {
    if (!rows[peer].empty()) merge(rows[peer], returned[peer]);
  }
}

Forward forward(Context& ctx, const Shards& in) {
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Partial acc = allocate_partial(ctx, in, mine.count(), accumulator_of(in.problem.dtype));
  const auto attend = [&](const Tensor& q, const Tokens& tokens, const Partial& result) {
    ctx.kernels.attention({q, in.k, in.v, tokens, mine, in.mask, in.problem.scale}, result);
  };
  pass_queries(
      ctx, in, forward_cargo(in.problem), {{in.q}}, [&] { attend(in.q, mine, acc); },
      [&](const Tokens& tokens, const Bundle& queries, const Bundle& result) {
        attend(queries.tensors[0], tokens, {result.tensors[0], result.tensors[1]});
      },
      [&](Rows rows, const Bundle& result) {
        ctx.kernels.merge(acc.rows(rows.begin, rows.end), {result.tensors[0], result.tensors[1]});
      });
  return finish(ctx, in, acc);
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Tensor delta = delta_of(ctx, d_out, saved.out);
  const AttentionGradients sums = zero_gradients(ctx, in);
  const auto attend = [&](const Bundle& row, const Tokens& tokens, const Tensor& d_rows) {
    ctx.kernels.attention_backward(
        {row.tensors[0], in.k, in.v, tokens, mine, in.mask, in.problem.scale}, row.tensors[1],
        row.tensors[2], row.tensors[3], {d_rows, sums.d_k, sums.d_v});
  };
  const Bundle own{{in.q, d_out, saved.lse, delta}};
  pass_queries(
      ctx, in, backward_cargo(in.problem), own, [&] { attend(own, mine, sums.d_q); },
      [&](const Tokens& tokens, const Bundle& queries, const Bundle& result) {
        ctx.kernels.fill(result.tensors[0], 0);
        attend(queries, tokens, result.tensors[0]);
      },
      [&](Rows rows, const Bundle& result) {
        ctx.kernels.add(sums.d_q.rows(rows.begin, rows.end), result.tensors[0]);
      });
  return finish(ctx, in, sums);
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t n = layout.count(rank), P = world.size, B = problem.shape.B;
  const std::int64_t pairs = pairs_of_keys(problem, layout, rank);
  std::int64_t computed = 0, returned = 0;  // rows of results
  for (int peer = 0; peer < world.size; ++peer) {
    if (peer == rank) continue;
    computed += seeing(band_of(problem), layout, peer, rank).count();
    returned += seeing(band_of(problem), layout, rank, peer).count();
  }
  // Buffers and results are let go before anything is rounded.
  const auto pass = [&](const Cargo& cargo, std::int64_t flops, std::int64_t held,
                        std::int64_t rounded) {
    const std::int64_t query = row_bytes(cargo.queries, B), result = row_bytes(cargo.results, B);
    const auto fields = static_cast<std::int64_t>(cargo.queries.size() + cargo.results.size());
    const std::int64_t travelling =
        query_stream_memory(layout, query) + (computed + returned) * result;
    return PassCost{query_stream_bytes(layout, rank, query) + computed * result, fields * (P - 1),
                    flops, n * held + std::max(travelling, n * storage_bytes(problem, rounded))};
  };
  return {pass(forward_cargo(problem), forward_flops(problem, pairs), token.acc_out + token.lse,
               token.out),
          pass(backward_cargo(problem), backward_flops(problem, pairs),
               token.lse + token.acc_q + token.acc_kv(), token.q + token.kv())};
}

Support supports(const Problem& problem, const World&) { return softmax_only(problem); }

}  // namespace

const Algorithm kPassQ{"pass_q",
                       "Pass-Q context parallelism",
                       "Yang et al. 2024, arXiv:2411.01783",
                       "Q around the ring, results back together",
                       Family::kSoftmax,
                       Sharding::kZigzag,
                       2,
                       supports,
                       cost,
                       forward,
                       backward};

}  // namespace sp
