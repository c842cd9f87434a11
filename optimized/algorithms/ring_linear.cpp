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

Cost cost(const Problem& problem, const Layout& layout, const World&, int rank) {
  const std::int64_t pairs = pairs_of_queries(problem, layout, rank);
  const Cargo cargo = cargo_of(problem, true);
  const Traffic keys = key_traffic(layout, rank, cargo.keys);
  Traffic back = keys;
  back += key_gradient_traffic(layout, cargo.key_gradients);
  return {{keys.bytes_sent, keys.messages_sent, forward_flops(problem, pairs)},
          {back.bytes_sent, back.messages_sent, backward_flops(problem, pairs)}};
}

Support supports(const Problem& problem, const World&) { return constant_decay_only(problem); }

}  // namespace

const Algorithm kRingLinear{
    .id = "ring_linear",
    .title = "Ring Attention for linear attention",
    .paper = "Sun et al. 2025, arXiv:2502.07563, section 4.1",
    .pattern = "K, V around the ring, left product",
    .family = Family::kLinear,
    .sharding = Sharding::kContiguous,
    .supports = supports,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
