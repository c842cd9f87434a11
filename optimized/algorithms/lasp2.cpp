// LASP-2: every rank gathers the states of all chunks and sums those that it needs.
//
// Paper      Sun et al., 2025, arXiv:2502.07563, algorithms 1 to 4.
// Pattern    One all-gather of states per pass, hidden behind the products inside the chunk; with
//            `splits` the state is cut along its features into as many all-gathers (table 5).
// Sharding   contiguous.
// Cost/rank  (P-1) F SH W elements in f32 per pass and sequence, whatever the length; per-channel
//            decays add (P-1) F H in forward.
// Memory     P states while a gather is open; one state, and P decays per channel, for backward.
// Invariant  `before` equals the state that one device would hold at the end of the previous chunk.
// Departs    Decays, gates, normalisers and document borders, which the paper leaves out; the mask
//            is 0 above the diagonal (printed: -inf, under an element-wise product); the unmasked
//            backward sums all ranks (printed: t+1..T). A window adds a halo exchange.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/lasp2.hpp"

#include <algorithm>
#include <utility>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/linear_chunk.hpp"
#include "optimized/algorithms/window_attention.hpp"

namespace sp {
namespace {

// All ranks' states on their way here.
class StateGather {
 public:
  StateGather(Context& ctx, Tensor mine) : mine_(std::move(mine)), features_(mine_.extent(0)) {
    const int P = ctx.comm.size();
    all_ = allocate_like(ctx, mine_, mine_.dtype(), P * features_, "state");
    const std::int64_t splits = std::min<std::int64_t>(ctx.splits, features_);
    for (std::int64_t piece = 0; piece < splits; ++piece) {
      const std::int64_t begin = part_begin(features_, splits, piece);
      const std::int64_t end = part_begin(features_, splits, piece + 1);
      std::vector<Tensor> places;
      for (int rank = 0; rank < P; ++rank) places.push_back(of(rank).rows(begin, end));
      pending_.push_back(ctx.comm.all_gather(mine_.rows(begin, end), std::move(places),
                                             {"state", static_cast<int>(piece)}));
    }
  }

  void wait() {
    for (Pending& each : pending_) each.wait();
  }
  Tensor of(int rank) const { return all_.rows(rank * features_, (rank + 1) * features_); }

 private:
  Tensor mine_, all_;
  std::int64_t features_;
  std::vector<Pending> pending_;
};

std::vector<int> ranks_between(int first, int last, int step) {  // from first up to, not with, last
  std::vector<int> ranks;
  for (int rank = first; rank != last; rank += step) ranks.push_back(rank);
  return ranks;
}

// The sum of the gathered states in the order of `ranks`, each decayed by the chunks after it.
Tensor sum_of(Context& ctx, const LinearChunk& chunk, const StateGather& gather,
              const std::vector<int>& ranks, const Tensor& decays, const char* name) {
  std::vector<StateSpan> spans;
  for (const int rank : ranks) {
    const Tensor state = gather.of(rank);
    const std::int64_t F = state.extent(0);
    spans.push_back(chunk.span(
        state, rank, decays.defined() ? decays.rows(rank * F, (rank + 1) * F) : Tensor()));
  }
  const Tensor sum = chunk.zero_state(name);
  ctx.kernels.linear_accumulate(sum, spans, chunk.terms());
  return sum;
}

// The decays of all chunks, kept for backward without the states beside them.
Tensor keep_decays(Context& ctx, const LinearChunk& chunk, const StateGather& gather) {
  const Tensor first = chunk.decay_column(gather.of(0));
  if (!first.defined()) return {};
  const std::int64_t F = first.extent(0);
  const Tensor decays = allocate_like(ctx, first, first.dtype(), ctx.comm.size() * F, "decay");
  for (int rank = 0; rank < ctx.comm.size(); ++rank) {
    ctx.kernels.copy(decays.rows(rank * F, (rank + 1) * F), chunk.decay_column(gather.of(rank)));
  }
  return decays;
}

struct Arrived {
  Tensor before;  // the state before this chunk; without a mask that of all chunks
  Tensor decays;
};

// Takes the gather, so that its buffers are gone before the outputs are made.
Arrived arrive(Context& ctx, const LinearChunk& chunk, StateGather gather, bool causal) {
  gather.wait();
  const Tensor decays = keep_decays(ctx, chunk, gather);
  const int last = causal ? ctx.comm.rank() : ctx.comm.size();
  return {sum_of(ctx, chunk, gather, ranks_between(0, last, 1), decays, "before"), decays};
}

Forward forward(Context& ctx, const Shards& in) {
  const bool causal = in.problem.mask.causal;
  const LinearChunk chunk(ctx, in);
  WindowAttention window(ctx, in);
  StateGather gather(ctx, chunk.message());
  const Tensor sums = chunk.sums();
  if (causal) {
    ctx.kernels.linear_forward(chunk.block(), {}, sums, {});
  } else {
    ctx.kernels.fill(sums, 0);
  }
  window.attend_own();
  const auto [before, decays] = arrive(ctx, chunk, std::move(gather), causal);
  if (causal) {
    ctx.kernels.linear_inter(chunk.block(), before, sums);
  } else {
    ctx.kernels.linear_apply(chunk.block(), before, sums);
  }
  if (!window.present()) return chunk.finish(sums, before, decays);
  return window.finish(sums, before);
}

Tensor arrive_d_after(Context& ctx, const LinearChunk& chunk, StateGather gather,
                      const Tensor& decays, bool causal) {
  gather.wait();
  const int P = ctx.comm.size();
  const std::vector<int> ranks =
      causal ? ranks_between(P - 1, ctx.comm.rank(), -1) : ranks_between(0, P, 1);
  return sum_of(ctx, chunk, gather, ranks, decays, "d_after");
}

Tensor own_d_state(Context& ctx, const LinearChunk& chunk, const Tensor& d_sums) {
  const Tensor d_state = chunk.state("d_state");
  ctx.kernels.linear_d_state(chunk.block(), d_sums, d_state);
  return d_state;
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const bool causal = in.problem.mask.causal;
  const LinearChunk chunk(ctx, in);
  const Tensor d_sums = chunk.d_sums(saved, d_out);
  StateGather gather(ctx, own_d_state(ctx, chunk, d_sums));
  const LinearGradients gradients = chunk.zero_gradients();
  const Tensor after = chunk.decays() ? chunk.state("after") : Tensor();
  const Tensor& before = LinearChunk::before(saved);
  if (causal) {
    ctx.kernels.linear_d_q(chunk.block(), before, d_sums, gradients, after);
    ctx.kernels.linear_d_kv(chunk.block(), {}, d_sums, gradients, {});
  } else {
    ctx.kernels.linear_apply_d_q(chunk.block(), before, d_sums, gradients);
  }
  WindowAttention(ctx, in).backward(saved, d_out, gradients);
  const Tensor d_after =
      arrive_d_after(ctx, chunk, std::move(gather), LinearChunk::decays(saved), causal);
  ctx.kernels.linear_d_kv_inter(chunk.block(), d_after, gradients);
  return chunk.finish(gradients, after, d_after);
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const std::int64_t P = world.size;
  const LinearFlops f = linear_flops_of(problem, layout.count(rank));
  const std::int64_t splits =
      std::min<std::int64_t>(world.splits, features_of(*problem.module, problem.shape.D));
  const bool causal = problem.mask.causal;
  Cost cost = window_cost(problem, layout, rank);
  cost.forward += {(P - 1) * message_bytes(problem), splits * (P - 1),
                   f.state + f.inter + (causal ? f.forward : 0)};
  cost.backward += {(P - 1) * state_bytes(problem), splits * (P - 1),
                    f.state + f.d_kv_inter + (causal ? f.d_q + f.d_kv : f.inter)};
  return cost;
}

Support supports(const Problem& problem, const World&) {
  if (const Support linear = linear_only(problem); !linear || problem.mask.causal) return linear;
  if (decay_of(*problem.module) != Decay::kNone) {
    return tl::unexpected(Unsupported{
        "without a mask all ranks share one sum of states, which knows no decay between tokens"});
  }
  if (!problem.mask.segment_ids.empty()) {
    return tl::unexpected(Unsupported{
        "without a mask all ranks share one sum of states, which knows no document borders"});
  }
  return {};
}

}  // namespace

const Algorithm kLasp2{
    .id = "lasp2",
    .title = "LASP-2",
    .paper = "Sun et al. 2025, arXiv:2502.07563",
    .pattern = "all-gather of states",
    .family = Family::kLinear,
    .sharding = Sharding::kContiguous,
    .supports = supports,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
