// LASP-1: the state travels the chain of ranks, each adds its own; backward the same in reverse.
//
// Paper      Sun et al., 2024, arXiv:2404.02882 (published schedule); OpenNLPLab/LASP (released);
//            ZeCO: Chou et al., 2025, arXiv:2507.01004, All-Scan.
// Pattern    P-1 dependent hops per pass. Published: products inside the chunk first, on all ranks
//            together, then receive, decay, add, send. Released: receive before any work, so that
//            ranks work one after the other. ZeCO: the published order, but the state is cut along
//            its features into `splits` pieces that follow each other down the chain.
// Sharding   contiguous.
// Cost/rank  F SH W elements in f32 per pass and sequence, sent by every rank but the last.
// Memory     three states (four while the own state waits to be added); one for backward.
// Invariant  The state received equals the one that one device would hold at that position.
// Departs    States are textbook states; the released code sends them multiplied by the decay of
//            one token. ZeCO hides its scan behind the products on streams of its own, here it
//            follows them. The scan of ZeCO is the whole of it that is here.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/lasp1.hpp"

#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/linear_chunk.hpp"

namespace sp {
namespace {

enum class Schedule { kPublished, kReleased, kPipelined };

// The neighbours in one direction of the chain; it has ends.
class Chain {
 public:
  Chain(Context& ctx, int direction, std::int64_t pieces)
      : ctx_(ctx),
        from_(ctx.comm.rank() - direction),
        to_(ctx.comm.rank() + direction),
        pieces_(pieces) {}

  bool first() const { return from_ < 0 || from_ >= ctx_.comm.size(); }
  bool last() const { return to_ < 0 || to_ >= ctx_.comm.size(); }
  std::int64_t pieces() const { return pieces_; }
  Tensor piece(const Tensor& state, std::int64_t index) const {
    const std::int64_t F = state.extent(0);
    return state.rows(part_begin(F, pieces_, index), part_begin(F, pieces_, index + 1));
  }
  Pending receive(const Tensor& state, std::int64_t index) {
    return ctx_.comm.exchange({}, {{from_, piece(state, index), label(index)}});
  }
  Pending send(const Tensor& state, std::int64_t index) {
    return ctx_.comm.exchange({{to_, piece(state, index), label(index)}}, {});
  }

 private:
  static Label label(std::int64_t index) { return {"state", static_cast<int>(index)}; }

  Context& ctx_;
  int from_, to_;
  std::int64_t pieces_;
};

template <Schedule kSchedule>
std::int64_t pieces_of(std::int64_t features, int splits) {
  return kSchedule == Schedule::kPipelined ? std::min<std::int64_t>(splits, features) : 1;
}

// Receives the state of the ranks before into `arriving` (zero at the start of the chain) and sends
// it on with the own state added, piece by piece.
void scan(Context& ctx, const LinearChunk& chunk, Chain chain, const Tensor& arriving,
          const Tensor& own, const Tensor& decay) {
  std::vector<Pending> receives, sends;
  for (std::int64_t piece = 0; !chain.first() && piece < chain.pieces(); ++piece)
    receives.push_back(chain.receive(arriving, piece));
  const Tensor leaving = chain.last() ? Tensor() : chunk.state("state");
  for (std::int64_t piece = 0; piece < chain.pieces(); ++piece) {
    if (!chain.first()) receives[static_cast<std::size_t>(piece)].wait();
    if (chain.last()) continue;
    const Tensor decay_piece = decay.defined() ? chain.piece(decay, piece) : Tensor();
    ctx.kernels.copy(chain.piece(leaving, piece), chain.piece(arriving, piece));
    const StateSpan span = chunk.span(chain.piece(own, piece), ctx.comm.rank(), decay_piece);
    ctx.kernels.linear_accumulate(chain.piece(leaving, piece), {&span, 1}, chunk.terms());
    sends.push_back(chain.send(leaving, piece));
  }
  for (Pending& each : sends) each.wait();
}

Tensor arrive(Context&, const LinearChunk& chunk, Chain& chain, const char* name) {
  if (chain.first()) return chunk.zero_state(name);
  const Tensor state = chunk.state(name);
  chain.receive(state, 0).wait();
  return state;
}

void leave(Chain& chain, const Tensor& state) {
  if (!chain.last()) chain.send(state, 0).wait();
}

Tensor keep_decay(Context& ctx, const Tensor& column) {
  if (!column.defined()) return {};
  const Tensor decay = allocate_like(ctx, column, column.dtype(), column.extent(0), "decay");
  ctx.kernels.copy(decay, column);
  return decay;
}

template <Schedule kSchedule>
Forward forward(Context& ctx, const Shards& in) {
  const LinearChunk chunk(ctx, in);
  const std::int64_t F = features_of(*in.problem.module, in.problem.shape.D);
  Chain chain(ctx, 1, pieces_of<kSchedule>(F, ctx.splits));
  const Tensor sums = chunk.sums();
  if (kSchedule == Schedule::kReleased) {
    const Tensor before = arrive(ctx, chunk, chain, "before");
    const Tensor after = chain.last() ? Tensor() : chunk.state("after");
    ctx.kernels.linear_forward(chunk.block(), before, sums, after);
    leave(chain, after);
    return chunk.finish(sums, before, {});
  }
  const Tensor own = chunk.message();
  const Tensor decay = keep_decay(ctx, chunk.decay_column(own));
  ctx.kernels.linear_forward(chunk.block(), {}, sums, {});
  const Tensor before = chain.first() ? chunk.zero_state("before") : chunk.state("before");
  scan(ctx, chunk, chain, before, own, decay);
  ctx.kernels.linear_inter(chunk.block(), before, sums);
  return chunk.finish(sums, before, decay);
}

template <Schedule kSchedule>
Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const LinearChunk chunk(ctx, in);
  const std::int64_t F = features_of(*in.problem.module, in.problem.shape.D);
  Chain chain(ctx, -1, pieces_of<kSchedule>(F, ctx.splits));
  const Tensor d_sums = chunk.d_sums(saved, d_out);
  const LinearGradients gradients = chunk.zero_gradients();
  const Tensor after = chunk.decays() ? chunk.state("after") : Tensor();
  const Tensor& before = LinearChunk::before(saved);
  if (kSchedule == Schedule::kReleased) {
    const Tensor d_after = arrive(ctx, chunk, chain, "d_after");
    const Tensor d_before = chain.last() ? Tensor() : chunk.state("d_before");
    ctx.kernels.linear_d_q(chunk.block(), before, d_sums, gradients, after);
    ctx.kernels.linear_d_kv(chunk.block(), d_after, d_sums, gradients, d_before);
    leave(chain, d_before);
    return chunk.finish(gradients, after, d_after);
  }
  const Tensor own = chunk.state("d_state");
  ctx.kernels.linear_d_state(chunk.block(), d_sums, own);
  ctx.kernels.linear_d_q(chunk.block(), before, d_sums, gradients, after);
  ctx.kernels.linear_d_kv(chunk.block(), {}, d_sums, gradients, {});
  const Tensor d_after = chain.first() ? chunk.zero_state("d_after") : chunk.state("d_after");
  scan(ctx, chunk, chain, d_after, own, LinearChunk::decays(saved));
  ctx.kernels.linear_d_kv_inter(chunk.block(), d_after, gradients);
  return chunk.finish(gradients, after, d_after);
}

template <Schedule kSchedule>
Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const std::int64_t n = layout.count(rank);
  const std::int64_t state = state_bytes(problem);
  const LinearFlops f = linear_flops_of(problem, n);
  const std::int64_t F = features_of(*problem.module, problem.shape.D);
  const std::int64_t pieces = pieces_of<kSchedule>(F, world.splits);
  const bool last = rank + 1 == world.size, first = rank == 0;
  Cost cost;
  cost.forward = {last ? 0 : state, last ? 0 : pieces, f.forward};
  cost.backward = {first ? 0 : state, first ? 0 : pieces, f.d_q + f.d_kv};
  if (kSchedule == Schedule::kReleased) return cost;
  cost.forward.flops += f.state + f.inter;
  cost.backward.flops += f.state + f.d_kv_inter;
  return cost;
}

Support supports(const Problem& problem, const World&) { return causal_linear(problem); }

template <Schedule kSchedule>
constexpr Algorithm describe(const char* id, const char* title, const char* paper,
                             const char* pattern) {
  return {
      .id = id,
      .title = title,
      .paper = paper,
      .pattern = pattern,
      .family = Family::kLinear,
      .sharding = Sharding::kContiguous,
      .supports = supports,
      .cost = cost<kSchedule>,
      .forward = forward<kSchedule>,
      .backward = backward<kSchedule>,
  };
}

}  // namespace

const Algorithm kLasp1 = describe<Schedule::kPublished>(
    "lasp1", "LASP-1", "Sun et al. 2024, arXiv:2404.02882", "states along the chain of ranks");
const Algorithm kLasp1Released =
    describe<Schedule::kReleased>("lasp1_released", "LASP-1 as released", "OpenNLPLab/LASP",
                                  "the same, received before any work");
const Algorithm kZeco =
    describe<Schedule::kPipelined>("zeco", "ZeCO All-Scan", "Chou et al. 2025, arXiv:2507.01004",
                                   "pieces of states along the chain of ranks");

}  // namespace sp
