// Ring Self-Attention (RSA): two passes over complete score rows; K travels first, then V.
//
// Paper      Li, Xue, Baranwal, Li, You, 2021, arXiv:2105.13120, section 3.2; backward from the
//            ColossalAI code.
// Pattern    Forward: ring of K, local softmax of whole rows, ring of V. Backward: all-reduce of
//            dV, ring of V, softmax backward, all-reduce of dK, ring of K.
// Sharding   contiguous.
// Cost/rank  forward 2(P-1) c hkv elements; backward as much plus two f32 all-reduces of N hkv
//            elements, 2(P-1) c hkv each: 8(P-1) c h in all for multi-head attention, the paper's
//            total (its "6 all-reduces" in 3.2.1 is a misprint).
// Memory     the score rows, c x N per head, in f32, kept for backward: O(N^2/P).
// Invariant  After the K ring, every local score row is complete; no online softmax anywhere.
// Variants   rsa computes every block and masks afterwards, as published; rsa_skip leaves out
//            blocks nobody sees.
// Departs    Hops are double-buffered behind the products (the released code waits for each).
//            Scores and probabilities stay in f32. The released code divides dQ, dK, dV by P, which
//            is a bug and is not copied.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/rsa.hpp"

#include <algorithm>
#include <array>

#include "optimized/algorithms/blocks.hpp"

namespace sp {
namespace {

enum class Masked : std::uint8_t { kComputed, kSkipped };

// Columns of the score rows that belong to `rank`: its tokens, as the layout is contiguous.
Rows columns_of(const Layout& layout, int rank) {
  return {part_begin(layout.size(), layout.ranks(), rank),
          part_begin(layout.size(), layout.ranks(), rank + 1)};
}

// Calls visit(source, block) for every rank's block of `own`, the own one first, while the next
// travels.
template <class Visit>
void around_the_ring(Context& ctx, const Layout& layout, const Tensor& own, const char* name,
                     Visit&& visit) {
  const int P = ctx.comm.size(), rank = ctx.comm.rank();
  std::array<Tensor, 2> buffers;
  for (int i = 0; i < std::min(P - 1, 2); ++i) {
    buffers[static_cast<std::size_t>(i)] =
        allocate_like(ctx, own, own.dtype(), largest_shard(layout), name);
  }
  Tensor held = own;
  for (int step = 0; step < P; ++step) {
    Pending pending;
    Tensor next;
    if (step + 1 < P) {
      const int coming = (rank - step - 1 + P) % P;
      next = buffers[static_cast<std::size_t>(step % 2)].rows(0, layout.count(coming));
      pending = ctx.comm.exchange({{(rank + 1) % P, held, {name, step}}},
                                  {{(rank + P - 1) % P, next, {name, step}}});
    }
    visit((rank - step + P) % P, held);
    pending.wait();
    held = next;
  }
}

// Which blocks of keys the local rows are multiplied with.
template <Masked kMasked>
bool computes(const Band& band, const Layout& layout, int rank, int source) {
  return kMasked == Masked::kComputed ||
         any_visible(band, layout.tokens(rank), layout.tokens(source));
}

Tensor score_rows(Context& ctx, const Shards& in, const char* name) {
  return ctx.memory.allocate(accumulator_of(in.problem.dtype),
                             {in.q.extent(0), in.q.extent(1), in.q.extent(2), in.layout.size()},
                             name);
}

template <Masked kMasked>
Forward forward(Context& ctx, const Shards& in) {
  const int rank = ctx.comm.rank();
  const Tokens mine = in.layout.tokens(rank), all({{0, 1, in.layout.size()}});
  const Tensor p = score_rows(ctx, in, "probabilities");
  const Tensor lse =
      ctx.memory.allocate(p.dtype(), {p.extent(0), p.extent(1), p.extent(2), 1}, "lse");
  const auto block = [&](int source) {
    const Rows columns = columns_of(in.layout, source);
    return p.slice(3, columns.begin, columns.end);
  };
  const auto used = [&](int source) {
    return computes<kMasked>(in.mask.band, in.layout, rank, source);
  };

  around_the_ring(ctx, in.layout, in.k, "k", [&](int source, const Tensor& k) {
    if (used(source)) ctx.kernels.scores(block(source), in.q, k, in.problem.scale);
  });
  ctx.kernels.scores_softmax(p, lse, mine, all, &in.mask);
  const Tensor out =
      zeros(ctx, p.dtype(), {p.extent(0), p.extent(1), p.extent(2), in.v.extent(3)}, "out");
  around_the_ring(ctx, in.layout, in.v, "v", [&](int source, const Tensor& v) {
    if (used(source)) ctx.kernels.scores_apply(out, block(source), v);
  });
  return {to_storage(ctx, out, in.problem.dtype, "out"), lse, {p}};
}

template <Masked kMasked>
Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const int P = ctx.comm.size(), rank = ctx.comm.rank();
  const std::int64_t N = in.layout.size();
  const Shape& s = in.problem.shape;
  const Tensor& p = saved.saved.front();
  const auto columns = [&](const Tensor& rows, int source) {
    const Rows c = columns_of(in.layout, source);
    return rows.slice(3, c.begin, c.end);
  };
  const auto used = [&](int source) {
    return computes<kMasked>(in.mask.band, in.layout, rank, source);
  };
  // Every rank's share of the gradient of all keys, from the local rows.
  const auto transposed = [&](const Tensor& total, const Tensor& rows, const Tensor& x) {
    for (int source = 0; source < P; ++source) {
      const Rows c = columns_of(in.layout, source);
      if (used(source))
        ctx.kernels.scores_apply_transposed(total.rows(c.begin, c.end), columns(rows, source), x);
    }
  };
  const auto own_part = [&](const Tensor& total, const char* name) {
    const Rows c = columns_of(in.layout, rank);
    const Tensor part = allocate_like(ctx, total, in.problem.dtype, c.count(), name);
    ctx.kernels.copy(part, total.rows(c.begin, c.end));
    return part;
  };

  const Tensor d_v = zeros(ctx, p.dtype(), {N, s.B, s.G, s.E}, "d_v");
  transposed(d_v, p, d_out);
  Pending d_v_pending = ctx.comm.all_reduce(d_v, {"d_v", 0});
  const Tensor d_s = score_rows(ctx, in, "d_scores");
  around_the_ring(ctx, in.layout, in.v, "v", [&](int source, const Tensor& v) {
    if (used(source)) ctx.kernels.scores(columns(d_s, source), d_out, v, 1);
  });
  ctx.kernels.scores_softmax_backward(d_s, p, in.problem.scale);
  d_v_pending.wait();
  const Tensor d_k = zeros(ctx, p.dtype(), {N, s.B, s.G, s.D}, "d_k");
  transposed(d_k, d_s, in.q);
  Pending d_k_pending = ctx.comm.all_reduce(d_k, {"d_k", 0});
  const Tensor d_q = zeros(ctx, p.dtype(), in.q.shape(), "d_q");
  around_the_ring(ctx, in.layout, in.k, "k", [&](int source, const Tensor& k) {
    if (used(source)) ctx.kernels.scores_apply(d_q, columns(d_s, source), k);
  });
  d_k_pending.wait();
  return {to_storage(ctx, d_q, in.problem.dtype, "d_q"),
          own_part(d_k, "d_k"),
          own_part(d_v, "d_v"),
          {},
          {}};
}

template <Masked kMasked>
Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const Shape& s = problem.shape;
  const std::int64_t P = world.size, n = layout.count(rank), N = layout.size();
  const auto a = static_cast<std::int64_t>(size_of(accumulator_of(problem.dtype)));
  const std::int64_t passed = P == 1 ? 0 : N - layout.count(static_cast<int>((rank + 1) % P));
  std::int64_t pairs = 0;
  for (int source = 0; source < P; ++source) {
    if (computes<kMasked>(band_of(problem), layout, rank, source))
      pairs += n * layout.count(source);
  }
  Traffic sums = all_reduce_traffic(N * s.B * s.G * s.E, a, rank, world.size);
  sums += all_reduce_traffic(N * s.B * s.G * s.D, a, rank, world.size);
  const std::int64_t product = 2 * pairs * s.B * s.H * (s.D + s.E);
  return {{passed * token.kv(), 2 * (P - 1), product},
          {passed * token.kv() + sums.bytes_sent, 2 * (P - 1) + sums.messages_sent, 2 * product}};
}

template <Masked kMasked>
constexpr Algorithm describe(const char* id, const char* title) {
  return {
      .id = id,
      .title = title,
      .paper = "Li et al. 2021, arXiv:2105.13120",
      .pattern = "K, then V around the ring; all-reduce of dK, dV",
      .sharding = Sharding::kContiguous,
      .cost = cost<kMasked>,
      .forward = forward<kMasked>,
      .backward = backward<kMasked>,
  };
}

}  // namespace

const Algorithm kRsa = describe<Masked::kComputed>("rsa", "Ring Self-Attention");
const Algorithm kRsaSkip =
    describe<Masked::kSkipped>("rsa_skip", "Ring Self-Attention, masked blocks skipped");

}  // namespace sp
