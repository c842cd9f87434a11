// RSA with Linformer: keys and values projected along the length to K' rows, partial projections
// summed over ranks.
//
// Paper      Li et al., 2021, arXiv:2105.13120, table 3 (shapes only; the sum over ranks is the
//            natural reading).
// Pattern    Forward: two all-reduces, of the projected K and V. Backward: two all-reduces of their
//            gradients.
// Sharding   contiguous; projections are split by rows with the tokens.
// Cost/rank  4 (P-1)/P B G K' D elements each way in f32: independent of the length.
// Memory     score rows c x K' per head and the projected K, V: O(N K'/P + K').
// Invariant  After the all-reduces every rank holds the same complete projected K and V.
// Departs    The paper counts no gradients of the projections; they are computed here, locally, per
//            token row.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/rsa.hpp"

namespace sp {
namespace {

Tensor::Extents projected_shape(const Shards& in, const Tensor& x) {
  return {in.problem.projected, x.extent(1), x.extent(2), x.extent(3)};
}

Tensor score_rows(Context& ctx, const Shards& in, const char* name) {
  return ctx.memory.allocate(accumulator_of(in.problem.dtype),
                             {in.q.extent(0), in.q.extent(1), in.q.extent(2), in.problem.projected},
                             name);
}

Forward forward(Context& ctx, const Shards& in) {
  const DType acc = accumulator_of(in.problem.dtype);
  const Tensor k = zeros(ctx, acc, projected_shape(in, in.k), "projected k");
  const Tensor v = zeros(ctx, acc, projected_shape(in, in.v), "projected v");
  ctx.kernels.project(k, in.projection_k, in.k);
  Pending k_pending = ctx.comm.all_reduce(k, {"projected k", 0});
  ctx.kernels.project(v, in.projection_v, in.v);
  Pending v_pending = ctx.comm.all_reduce(v, {"projected v", 0});
  k_pending.wait();
  const Tensor p = score_rows(ctx, in, "probabilities");
  const Tensor lse = ctx.memory.allocate(acc, {p.extent(0), p.extent(1), p.extent(2), 1}, "lse");
  ctx.kernels.scores(p, in.q, k, in.problem.scale);
  ctx.kernels.scores_softmax(p, lse, {}, {}, nullptr);
  v_pending.wait();
  const Tensor out = zeros(ctx, acc, {p.extent(0), p.extent(1), p.extent(2), v.extent(3)}, "out");
  ctx.kernels.scores_apply(out, p, v);
  return {to_storage(ctx, out, in.problem.dtype, "out"), lse, {p, k, v}};
}

Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const DType acc = accumulator_of(in.problem.dtype), dtype = in.problem.dtype;
  const Tensor &p = saved.saved[0], &k = saved.saved[1], &v = saved.saved[2];
  const Tensor d_projected_v = zeros(ctx, acc, v.shape(), "d_projected v");
  ctx.kernels.scores_apply_transposed(d_projected_v, p, d_out);
  Pending v_pending = ctx.comm.all_reduce(d_projected_v, {"d_projected v", 0});
  const Tensor d_s = score_rows(ctx, in, "d_scores");
  ctx.kernels.scores(d_s, d_out, v, 1);
  ctx.kernels.scores_softmax_backward(d_s, p, in.problem.scale);
  const Tensor d_projected_k = zeros(ctx, acc, k.shape(), "d_projected k");
  ctx.kernels.scores_apply_transposed(d_projected_k, d_s, in.q);
  Pending k_pending = ctx.comm.all_reduce(d_projected_k, {"d_projected k", 0});
  const Tensor d_q = zeros(ctx, acc, in.q.shape(), "d_q");
  ctx.kernels.scores_apply(d_q, d_s, k);

  const Tensor d_k = zeros(ctx, acc, in.k.shape(), "d_k");
  const Tensor d_v = zeros(ctx, acc, in.v.shape(), "d_v");
  const Tensor d_projection_k = zeros(ctx, acc, in.projection_k.shape(), "d_projection_k");
  const Tensor d_projection_v = zeros(ctx, acc, in.projection_v.shape(), "d_projection_v");
  v_pending.wait();
  ctx.kernels.project_backward(d_v, d_projection_v, d_projected_v, in.projection_v, in.v);
  k_pending.wait();
  ctx.kernels.project_backward(d_k, d_projection_k, d_projected_k, in.projection_k, in.k);
  return {to_storage(ctx, d_q, dtype, "d_q"), to_storage(ctx, d_k, dtype, "d_k"),
          to_storage(ctx, d_v, dtype, "d_v"),
          to_storage(ctx, d_projection_k, dtype, "d_projection_k"),
          to_storage(ctx, d_projection_v, dtype, "d_projection_v")};
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const Shape& s = problem.shape;
  const std::int64_t n = layout.count(rank), K = problem.projected;
  const auto a = static_cast<std::int64_t>(size_of(accumulator_of(problem.dtype)));
  Traffic sums = all_reduce_traffic(K * s.B * s.G * s.D, a, rank, world.size);
  sums += all_reduce_traffic(K * s.B * s.G * s.E, a, rank, world.size);
  const std::int64_t project = 2 * n * s.B * s.G * (s.D + s.E) * K;
  const std::int64_t attend = 2 * n * K * s.B * s.H * (s.D + s.E);
  return {{sums.bytes_sent, sums.messages_sent, project + attend},
          {sums.bytes_sent, sums.messages_sent, 2 * project + 2 * attend}};
}

Support supports(const Problem& problem, const World&) {
  if (problem.family() == Family::kProjectedSoftmax) return {};
  return tl::unexpected(Unsupported{"the problem has no projections of keys and values"});
}

}  // namespace

const Algorithm kRsaLinformer{
    .id = "rsa_linformer",
    .title = "Ring Self-Attention with Linformer",
    .paper = "Li et al. 2021, arXiv:2105.13120",
    .pattern = "all-reduce of projected K, V and of their gradients",
    .family = Family::kProjectedSoftmax,
    .sharding = Sharding::kContiguous,
    .supports = supports,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
