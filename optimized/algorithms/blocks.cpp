// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/blocks.hpp"

#include <algorithm>
#include <limits>

namespace sp {

TokenBytes::TokenBytes(const Problem& problem) {
  const Shape& s = problem.shape;
  const auto e = static_cast<std::int64_t>(size_of(problem.dtype));
  const auto a = static_cast<std::int64_t>(size_of(accumulator_of(problem.dtype)));
  q = s.B * s.H * s.D * e;
  out = s.B * s.H * s.E * e;
  k = s.B * s.G * s.D * e;
  v = s.B * s.G * s.E * e;
  acc_q = q / e * a;
  acc_out = out / e * a;
  acc_k = k / e * a;
  acc_v = v / e * a;
  lse = s.B * s.H * a;
}

Tensor allocate_like(Context& ctx, const Tensor& like, DType dtype, std::int64_t rows,
                     const char* name) {
  return ctx.memory.allocate(dtype, {rows, like.extent(1), like.extent(2), like.extent(3)}, name);
}

Tensor zeros(Context& ctx, DType dtype, Tensor::Extents shape, const char* name) {
  Tensor tensor = ctx.memory.allocate(dtype, shape, name);
  ctx.kernels.fill(tensor, 0);
  return tensor;
}

Partial allocate_partial(Context& ctx, const Shards& in, std::int64_t rows, DType out_type) {
  const Shape& s = in.problem.shape;
  return {ctx.memory.allocate(out_type, {rows, s.B, s.H, s.E}, "out"),
          ctx.memory.allocate(accumulator_of(in.problem.dtype), {rows, s.B, s.H, 1}, "lse")};
}

Partial empty_partial(Context& ctx, const Shards& in) {
  Partial partial = allocate_partial(ctx, in, in.q.extent(0), accumulator_of(in.problem.dtype));
  ctx.kernels.fill(partial.out, 0);
  ctx.kernels.fill(partial.lse, -std::numeric_limits<double>::infinity());
  return partial;
}

Tensor to_storage(Context& ctx, const Tensor& accumulated, DType dtype, const char* name) {
  if (accumulated.dtype() == dtype) return accumulated;
  Tensor result = ctx.memory.allocate(dtype, accumulated.shape(), name);
  ctx.kernels.copy(result, accumulated);
  return result;
}

Forward finish(Context& ctx, const Shards& in, const Partial& accumulated) {
  return {to_storage(ctx, accumulated.out, in.problem.dtype, "out"), accumulated.lse, {}};
}

Gradients finish(Context& ctx, const Shards& in, const AttentionGradients& accumulated) {
  const DType dtype = in.problem.dtype;
  return {to_storage(ctx, accumulated.d_q, dtype, "d_q"),
          to_storage(ctx, accumulated.d_k, dtype, "d_k"),
          to_storage(ctx, accumulated.d_v, dtype, "d_v"),
          {},
          {}};
}

Tensor delta_of(Context& ctx, const Tensor& d_out, const Tensor& out) {
  Tensor delta = ctx.memory.allocate(accumulator_of(out.dtype()),
                                     {out.extent(0), out.extent(1), out.extent(2), 1}, "delta");
  ctx.kernels.attention_delta(delta, d_out, out);
  return delta;
}

Mesh node_mesh(const Context& ctx) {
  return node_mesh({ctx.comm.size(), ctx.node_size}, ctx.comm.rank());
}

Mesh node_mesh(const World& world, int rank) {
  return Mesh({{"node", world.size / world.node_size}, {"local", world.node_size}}, rank);
}

Support softmax_only(const Problem& problem, const World&) {
  if (problem.family() == Family::kSoftmax) return {};
  return tl::unexpected(Unsupported{"keys and values are projected along the length (Linformer)"});
}

std::vector<Tensor> parts_of(const Tensor& all, const std::vector<std::int64_t>& rows) {
  std::vector<Tensor> parts;
  std::int64_t begin = 0;
  for (const std::int64_t count : rows) {
    parts.push_back(all.rows(begin, begin + count));
    begin += count;
  }
  return parts;
}

std::vector<Tensor> parts_of(const Tensor& all, const Layout& layout) {
  return parts_of(all, layout.counts());
}

std::int64_t largest_shard(const Layout& layout) {
  std::int64_t most = 0;
  for (int rank = 0; rank < layout.ranks(); ++rank) most = std::max(most, layout.count(rank));
  return most;
}

std::int64_t pairs_of_queries(const Problem& problem, const Layout& layout, int rank) {
  const Tokens all({{0, 1, layout.size()}});
  return visible_pairs(band_of(problem), layout.tokens(rank), all);
}

std::int64_t pairs_of_keys(const Problem& problem, const Layout& layout, int rank) {
  const Tokens all({{0, 1, layout.size()}});
  return visible_pairs(band_of(problem), all, layout.tokens(rank));
}

std::int64_t forward_flops(const Problem& problem, std::int64_t pairs) {
  const Shape& s = problem.shape;
  return attention_flops(pairs, s.B, s.H, s.D, s.E);
}

std::int64_t backward_flops(const Problem& problem, std::int64_t pairs) {
  const Shape& s = problem.shape;
  return attention_backward_flops(pairs, s.B, s.H, s.D, s.E);
}

}  // namespace sp
