// Ring attention for linear attention: blocks of keys and values travel a ring, every pair of
// tokens is multiplied out.
//
// Paper      Sun et al., 2025, arXiv:2502.07563, section 4.1: the baseline "Ring Attention" keeps
//            its communication and its computation; the right product is not used.
// Pattern    P-1 hops of (K, V), each behind one block; backward again, with (dK, dV) one hop behind.
// Sharding   contiguous, as in the paper; causal work grows with the rank.
// Cost/rank  the bytes of ring/contiguous, and its flops: quadratic in the length.
// Memory     one accumulator, two (K, V) blocks: O(N/P).
// Invariant  After step s, sums holds the contribution of s+1 key blocks.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/ring_linear.hpp"

#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/linear_chunk.hpp"
#include "optimized/algorithms/ring_streams.hpp"

namespace sp {
namespace {

AttentionBlock block_of(const Shards& in, const Tokens& queries, const KeyValue& held,
                        const Tokens& keys) {
  return {in.q, held.k, held.v, queries, keys, in.mask, in.problem.scale};
}

Tensor zero_d_decay(Context& ctx, const Shards& in) {
  if (decay_of(*in.problem.module) == Decay::kNone) return {};
  return zeros(ctx, in.log_decay.dtype(), in.log_decay.shape(), "d_log_decay");
}

Forward forward(Context& ctx, const Shards& in) {
  const Shape& s = in.problem.shape;
  const LinearTerms terms = linear_terms(in);
  const Tokens queries = in.layout.tokens(ctx.comm.rank());
  const Tensor sums =
      zeros(ctx, accumulator_of(in.problem.dtype), {queries.count(), s.B, s.H, s.E}, "sums");
  KeyStream stream(ctx, in, {ctx.comm, ctx.comm});
  for (int step = 0; step < ctx.comm.size(); ++step) {
    stream.post(step);
    const Tokens keys = stream.lane().tokens(step);
    if (any_visible(in.mask.band, queries, keys))
      ctx.kernels.linear_block(block_of(in, queries, stream.held(), keys), terms, sums);
    stream.advance(step);
  }
  return {to_storage(ctx, sums, in.problem.dtype, "out"), {}, {}};
}

Gradients backward(Context& ctx, const Shards& in, const Forward&, const Tensor& d_out) {
  const DType dtype = in.problem.dtype;
  const LinearTerms terms = linear_terms(in);
  const Tokens queries = in.layout.tokens(ctx.comm.rank());
  const Tensor d_q = zeros(ctx, accumulator_of(dtype), in.q.shape(), "d_q");
  const Tensor d_log_decay = zero_d_decay(ctx, in);
  KeyStream stream(ctx, in, {ctx.comm, ctx.comm});
  GradientStream sums(ctx, in, stream.lane());
  for (int step = 0; step < ctx.comm.size(); ++step) {
    stream.post(step);
    const Tokens keys = stream.lane().tokens(step);
    const KeyValue share = sums.fresh(step);
    if (any_visible(in.mask.band, queries, keys)) {
      ctx.kernels.linear_block_backward(block_of(in, queries, stream.held(), keys), terms, d_out,
                                        {d_q, share.k, share.v}, d_log_decay);
    }
    sums.pass(step, share);
    stream.advance(step);
  }
  Gradients gradients{to_storage(ctx, d_q, dtype, "d_q"),
                      to_storage(ctx, sums.home().k, dtype, "d_k"),
                      to_storage(ctx, sums.home().v, dtype, "d_v")};
  gradients.d_log_decay = d_log_decay;
  return gradients;
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t n = layout.count(rank), P = world.size, N = layout.size();
  const std::int64_t pairs = pairs_of_queries(problem, layout, rank);
  const std::int64_t most = largest_shard(layout);
  const std::int64_t buffers = most * std::min(P - 1, std::int64_t{2}) * token.kv();
  const int next = static_cast<int>((rank + 1) % P);
  const std::int64_t passed = P == 1 ? 0 : (N - layout.count(next)) * token.kv();
  const std::int64_t returned = P == 1 ? 0 : N * token.acc_kv();
  const std::int64_t decay =
      decay_of(*problem.module) == Decay::kNone
          ? 0
          : problem.shape.H * static_cast<std::int64_t>(size_of(accumulator_of(problem.dtype)));
  return {{passed, 2 * (P - 1), forward_flops(problem, pairs),
           n * (token.acc_out + storage_bytes(problem, token.out)) + buffers},
          {passed + returned, 2 * (P - 1) + (P == 1 ? 0 : 2 * P), backward_flops(problem, pairs),
           n * (token.acc_q + storage_bytes(problem, token.q + token.kv())) + buffers +
               most * (P == 1 ? 1 : 3) * token.acc_kv() + decay}};
}

Support supports(const Problem& problem, const World&) { return constant_decay_only(problem); }

}  // namespace

const Algorithm kRingLinear{"ring_linear",
                            "Ring Attention for linear attention",
                            "Sun et al. 2025, arXiv:2502.07563, section 4.1",
                            "K, V around the ring, left product",
                            Family::kLinear,
                            Sharding::kContiguous,
                            1,
                            supports,
                            cost,
                            forward,
                            backward};

}  // namespace sp
