// DistFlashAttn (LightSeq): causal attention on contiguous shards, balanced by ranks that have run
// out of keys and help later ranks with their queries.
//
// Paper      Li, Shao et al., 2023, arXiv:2310.03294, algorithms 1 and 2.
// Pattern    P/2 steps. A parcel at each: keys and values straight from their owner, or queries to
//            a helper, whose partial result returns one step later; both hide behind a kernel.
//            Backward the same: (dK, dV) return to the owner of the keys, dQ to that of the
//            queries. Without a causal mask nobody is idle, and this is ring/contiguous.
// Sharding   contiguous.
// Cost/rank  mean, multi-head: forward (P-1) c h elements, half a ring's, and 4 c H per helped
//            block; backward (P-1) c h of K, V or Q, dO and as much of gradients in f32.
// Memory     two parcels and two results of each kind: O(N/P).
// Invariant  After step s, the queries of rank r have met the keys of ranks r-s..r, and those of
//            rank r+P-s..P-1 the keys of rank r.
// Departs    Helpers return normalised results and log-sum-exps instead of numerators, maxima and
//            sums. Blocks that a window hides are skipped. dK, dV and dQ travel in f32. Checkpoints
//            at the outputs of attention are a matter of the model.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/dist_flash.hpp"

#include <algorithm>

#include "optimized/algorithms/balanced_schedule.hpp"
#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/ring_attention.hpp"

namespace sp {
namespace {

Parcels forward_parcels(const Problem& problem) {
  const Shape& s = problem.shape;
  const Cargo helped = forward_cargo(problem);
  return {{{{"k", problem.dtype, s.G, s.D}, {"v", problem.dtype, s.G, s.E}}, {}},
          {helped.queries, helped.results}};
}

Parcels backward_parcels(const Problem& problem) {
  const Shape& s = problem.shape;
  const DType acc = accumulator_of(problem.dtype);
  const Cargo helped = backward_cargo(problem);
  return {{forward_parcels(problem).keys.sent, {{"d_k", acc, s.G, s.D}, {"d_v", acc, s.G, s.E}}},
          {helped.queries, helped.results}};
}

Forward forward(Context& ctx, const Shards& in) {
  if (!in.mask.band.causal) return kRingContiguous.forward(ctx, in);
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const DType dtype = accumulator_of(in.problem.dtype);
  const Partial acc = allocate_partial(ctx, in, mine.count(), dtype);
  const Partial part = allocate_partial(ctx, in, mine.count(), dtype);
  const auto attend = [&](const Tensor& q, const Tensor& k, const Tensor& v, const Tokens& queries,
                          const Tokens& keys, const Partial& result) {
    ctx.kernels.attention({q, k, v, queries, keys, in.mask, in.problem.scale}, result);
  };
  run_balanced(
      ctx, in, forward_parcels(in.problem), {{in.k, in.v}}, {{in.q}},
      [&] { attend(in.q, in.k, in.v, mine, mine, acc); },
      [&](Parcel kind, int source, const Bundle& parcel, const Bundle& result) {
        const Tokens theirs = in.layout.tokens(source);
        if (kind == Parcel::kKeys) {
          attend(in.q, parcel.tensors[0], parcel.tensors[1], mine, theirs, part);
          ctx.kernels.merge(acc, part);
        } else {
          attend(parcel.tensors[0], in.k, in.v, theirs, mine,
                 {result.tensors[0], result.tensors[1]});
        }
      },
      [&](Parcel, const Bundle& result) {
        ctx.kernels.merge(acc, {result.tensors[0], result.tensors[1]});
      });
  return finish(ctx, in, acc);
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  if (!in.mask.band.causal) return kRingContiguous.backward(ctx, in, saved, d_out);
  const Tokens mine = in.layout.tokens(ctx.comm.rank());
  const Tensor delta = delta_of(ctx, d_out, saved.out);
  const AttentionGradients sums = zero_gradients(ctx, in);
  const Bundle own_keys{{in.k, in.v}}, own_queries{{in.q, d_out, saved.lse, delta}};
  const auto attend = [&](const Bundle& rows, const Bundle& block, const Tokens& queries,
                          const Tokens& keys, const AttentionGradients& gradients) {
    ctx.kernels.attention_backward({rows.tensors[0], block.tensors[0], block.tensors[1], queries,
                                    keys, in.mask, in.problem.scale},
                                   rows.tensors[1], rows.tensors[2], rows.tensors[3], gradients);
  };
  run_balanced(
      ctx, in, backward_parcels(in.problem), own_keys, own_queries,
      [&] { attend(own_queries, own_keys, mine, mine, sums); },
      [&](Parcel kind, int source, const Bundle& parcel, const Bundle& result) {
        const Tokens theirs = in.layout.tokens(source);
        for (const Tensor& tensor : result.tensors) ctx.kernels.fill(tensor, 0);
        if (kind == Parcel::kKeys) {
          attend(own_queries, parcel, mine, theirs,
                 {sums.d_q, result.tensors[0], result.tensors[1]});
        } else {
          attend(parcel, own_keys, theirs, mine, {result.tensors[0], sums.d_k, sums.d_v});
        }
      },
      [&](Parcel sent, const Bundle& result) {
        if (sent == Parcel::kKeys) {
          ctx.kernels.add(sums.d_k, result.tensors[0]);
          ctx.kernels.add(sums.d_v, result.tensors[1]);
        } else {
          ctx.kernels.add(sums.d_q, result.tensors[0]);
        }
      });
  return finish(ctx, in, sums);
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  if (!problem.mask.causal) return kRingContiguous.cost(problem, layout, world, rank);
  const TokenBytes token(problem);
  const std::int64_t n = layout.count(rank), pairs = balanced_pairs(problem, layout, rank);
  // Parcels are let go before anything is rounded.
  const auto pass = [&](const Parcels& parcels, std::int64_t flops, std::int64_t held,
                        std::int64_t rounded) {
    const Traffic traffic = balanced_traffic(problem, layout, parcels, rank);
    return PassCost{traffic.bytes_sent, traffic.messages_sent, flops,
                    n * held + std::max(balanced_memory(problem, layout, parcels, rank),
                                        n * storage_bytes(problem, rounded))};
  };
  return {pass(forward_parcels(problem), forward_flops(problem, pairs),
               2 * (token.acc_out + token.lse), token.out),
          pass(backward_parcels(problem), backward_flops(problem, pairs),
               token.lse + token.acc_q + token.acc_kv(), token.q + token.kv())};
}

Support supports(const Problem& problem, const World&) { return softmax_only(problem); }

}  // namespace

const Algorithm kDistFlash{"dist_flash",
                           "DistFlashAttn",
                           "Li, Shao et al. 2023, arXiv:2310.03294",
                           "K, V or Q to where work is missing, results back",
                           Family::kSoftmax,
                           Sharding::kContiguous,
                           2,
                           supports,
                           cost,
                           forward,
                           backward};

}  // namespace sp
