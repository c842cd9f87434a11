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
#include "optimized/algorithms/ring_attention.hpp"

namespace sp {
namespace {

Forward forward(Context& ctx, const Shards& in) {
  if (!in.mask.band.causal) return kRingContiguous.forward(ctx, in);
  AttentionPass pass(ctx, in);
  run_balanced(ctx, in, pass, pass.keys());
  return pass.finish();
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  if (!in.mask.band.causal) return kRingContiguous.backward(ctx, in, saved, d_out);
  AttentionPass pass(ctx, in, saved, d_out);
  const Keys keys = pass.keys();
  run_balanced(ctx, in, pass, keys);
  return pass.finish(keys.d_k, keys.d_v);
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  if (!problem.mask.causal) return kRingContiguous.cost(problem, layout, world, rank);
  const std::int64_t pairs = balanced_pairs(problem, layout, rank);
  const auto pass = [&](bool backward, std::int64_t flops) {
    const Traffic traffic = balanced_traffic(problem, layout, cargo_of(problem, backward), rank);
    return PassCost{traffic.bytes_sent, traffic.messages_sent, flops};
  };
  return {pass(false, forward_flops(problem, pairs)), pass(true, backward_flops(problem, pairs))};
}

}  // namespace

const Algorithm kDistFlash{
    .id = "dist_flash",
    .title = "DistFlashAttn",
    .paper = "Li, Shao et al. 2023, arXiv:2310.03294",
    .pattern = "K, V or Q to where work is missing, results back",
    .sharding = Sharding::kContiguous,
    .roundings = 2,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
