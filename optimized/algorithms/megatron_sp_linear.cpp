// Megatron sequence parallelism for linear attention: gather the sequence, compute some heads of
// it, scatter the outputs.
//
// Paper      Korthikanti et al., 2022, arXiv:2205.05198; as a baseline Sun et al., 2025,
//            arXiv:2502.07563, section 4.1: the right product is not used.
// Pattern    All-gather of Q, K, V, reduce-scatter of outputs; backward gathers Q, K, V, dO again
//            and reduce-scatters dQ, dK, dV.
// Sharding   contiguous tokens between the layers, heads inside.
// Cost/rank  forward (P-1) c (h + 2 hkv) elements, and (P-1) c h in f32; flops quadratic in the
//            length.
// Memory     the whole sequence: O(N).
// Invariant  Every head is computed by one rank; the sum over ranks only collects.
// Departs    Megatron gathers the layer's input, h elements per token, and projects it here; without
//            projections Q, K and V travel themselves. Sums travel in f32. More ranks than heads
//            are legal: the surplus computes nothing.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/megatron_sp_linear.hpp"

#include <algorithm>

#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/linear_chunk.hpp"

namespace sp {
namespace {

struct Sequence {  // of all ranks
  Tensor q, k, v, d_out;
  Tokens tokens;
};

Sequence gather(Context& ctx, const Shards& in, const Tensor& d_out) {
  Sequence all;
  std::vector<Pending> pending;
  const auto add = [&](const Tensor& mine, const char* name) {
    const Tensor whole = allocate_like(ctx, mine, mine.dtype(), in.layout.size(), name);
    pending.push_back(ctx.comm.all_gather(mine, parts_of(whole, in.layout), {name, 0}));
    return whole;
  };
  all.q = add(in.q, "q");
  all.k = add(in.k, "k");
  all.v = add(in.v, "v");
  if (d_out.defined()) all.d_out = add(d_out, "d_out");
  all.tokens = Tokens({{0, 1, in.layout.size()}});
  for (Pending& each : pending) each.wait();
  return all;
}

Tensor head(const Tensor& tensor, std::int64_t h) {
  return tensor.defined() ? tensor.slice(2, h, h + 1) : Tensor();
}

// f(query head, key head, the block of this head, its terms) for every head of this rank.
template <class F>
void for_each_head(Context& ctx, const Shards& in, const Sequence& all, F&& f) {
  const std::int64_t H = in.problem.shape.H, group = H / in.problem.shape.G;
  const int P = ctx.comm.size(), rank = ctx.comm.rank();
  for (std::int64_t h = part_begin(H, P, rank); h < part_begin(H, P, rank + 1); ++h) {
    const std::int64_t g = h / group;
    LinearTerms terms = linear_terms(in);
    terms.log_decay = head(terms.log_decay, h);
    f(h, g,
      AttentionBlock{head(all.q, h), head(all.k, g), head(all.v, g), all.tokens, all.tokens,
                     in.mask, in.problem.scale},
      terms);
  }
}

// This rank's tokens of the sum over ranks, in the storage type.
Tensor scatter_sum(Context& ctx, const Shards& in, const Tensor& all, const char* name) {
  const Tensor own = allocate_like(ctx, all, all.dtype(), in.layout.count(ctx.comm.rank()), name);
  ctx.comm.reduce_scatter(parts_of(all, in.layout), own, {name, 0}).wait();
  return to_storage(ctx, own, in.problem.dtype, name);
}

Forward forward(Context& ctx, const Shards& in) {
  const Shape& s = in.problem.shape;
  const Sequence all = gather(ctx, in, {});
  const Tensor sums = zeros(ctx, accumulator_of(in.problem.dtype), {s.N, s.B, s.H, s.E}, "out");
  for_each_head(
      ctx, in, all,
      [&](std::int64_t h, std::int64_t, const AttentionBlock& block, const LinearTerms& terms) {
        ctx.kernels.linear_block(block, terms, head(sums, h));
      });
  return {scatter_sum(ctx, in, sums, "out"), {}, {}};
}

Gradients backward(Context& ctx, const Shards& in, const Forward&, const Tensor& d_out) {
  const DType acc = accumulator_of(in.problem.dtype);
  const Sequence all = gather(ctx, in, d_out);
  const Tensor d_q = zeros(ctx, acc, all.q.shape(), "d_q");
  const Tensor d_k = zeros(ctx, acc, all.k.shape(), "d_k");
  const Tensor d_v = zeros(ctx, acc, all.v.shape(), "d_v");
  Tensor d_log_decay;
  if (decay_of(*in.problem.module) != Decay::kNone)
    d_log_decay = zeros(ctx, acc, in.log_decay.shape(), "d_log_decay");
  for_each_head(
      ctx, in, all,
      [&](std::int64_t h, std::int64_t g, const AttentionBlock& block, const LinearTerms& terms) {
        ctx.kernels.linear_block_backward(block, terms, head(all.d_out, h),
                                          {head(d_q, h), head(d_k, g), head(d_v, g)},
                                          head(d_log_decay, h));
      });
  Gradients gradients{scatter_sum(ctx, in, d_q, "d_q"), scatter_sum(ctx, in, d_k, "d_k"),
                      scatter_sum(ctx, in, d_v, "d_v")};
  gradients.d_log_decay = d_log_decay;
  return gradients;
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  const TokenBytes token(problem);
  const std::int64_t P = world.size, N = layout.size(), n = layout.count(rank);
  const std::int64_t H = problem.shape.H;
  const std::int64_t heads = part_begin(H, P, rank + 1) - part_begin(H, P, rank);
  const Tokens all({{0, 1, N}});
  const std::int64_t pairs = visible_pairs(band_of(problem), all, all) * heads;
  Problem one_head = problem;
  one_head.shape.H = one_head.shape.G = 1;
  return {
      {(P - 1) * n * (token.q + token.kv()) + (N - n) * token.acc_out, 4 * (P - 1),
       forward_flops(one_head, pairs)},
      {(P - 1) * n * (token.q + token.kv() + token.out) + (N - n) * (token.acc_q + token.acc_kv()),
       7 * (P - 1), backward_flops(one_head, pairs)}};
}

Support supports(const Problem& problem, const World&) { return constant_decay_only(problem); }

}  // namespace

const Algorithm kMegatronSpLinear{
    .id = "megatron_sp_linear",
    .title = "Megatron sequence parallelism for linear attention",
    .paper = "Korthikanti et al. 2022, arXiv:2205.05198",
    .pattern = "all-gather of Q, K, V; reduce-scatter of outputs",
    .family = Family::kLinear,
    .sharding = Sharding::kContiguous,
    .supports = supports,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
