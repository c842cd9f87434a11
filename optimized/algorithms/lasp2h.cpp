// LASP-2H: a stack of linear and softmax layers, each gathering what its kind needs.
//
// Paper      Sun et al., 2025, arXiv:2502.07563, section 3.4, algorithm 7.
// Pattern    Linear layers all-gather states (lasp2), softmax layers all-gather keys and values
//            (allgather), with grouped heads and document masks.
// Sharding   contiguous, for both kinds: softmax layers are not balanced under a causal mask.
// Cost/rank  the sum over layers; only the softmax layers' bytes grow with the length.
// Memory     of one layer, and what every layer keeps for backward.
// Invariant  Layer l reads the outputs of layer l-1 as queries, in the storage type.
// Departs    Layers follow each other directly, without projections, norms and feed-forward parts.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/lasp2h.hpp"

#include <algorithm>

#include "optimized/algorithms/allgather_attention.hpp"
#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/lasp2.hpp"
#include "optimized/algorithms/linear_chunk.hpp"

namespace sp {
namespace {

const Algorithm& kind_of(const Problem& layer) { return layer.module ? kLasp2 : kAllgather; }

// A layer's key/value heads as tensors of their own: messages are contiguous.
Tensor heads_of(Context& ctx, const Tensor& all, std::int64_t layer, std::int64_t G) {
  const Tensor heads = ctx.memory.allocate(
      all.dtype(), {all.extent(0), all.extent(1), G, all.extent(3)}, all.name());
  ctx.kernels.copy(heads, all.slice(2, layer * G, (layer + 1) * G));
  return heads;
}

Shards shards_of(Context& ctx, const Shards& in, const Problem& problem, std::int64_t layer,
                 const Tensor& queries) {
  Shards shards{problem,
                in.layout,
                in.mask,
                queries,
                heads_of(ctx, in.k, layer, problem.shape.G),
                heads_of(ctx, in.v, layer, problem.shape.G)};
  if (problem.module) shards.log_decay = in.log_decay;
  return shards;
}

// Where the tensors of a layer lie in `saved`: its queries, then what its forward returned.
constexpr std::size_t kKept = 6;

void keep(std::vector<Tensor>& saved, const Tensor& queries, const Forward& forward) {
  const std::size_t end = saved.size() + kKept;
  saved.insert(saved.end(), {queries, forward.out, forward.lse});
  saved.insert(saved.end(), forward.saved.begin(), forward.saved.end());
  SP_CHECK(saved.size() <= end, "a layer saves more than a stack keeps");
  saved.resize(end);
}

Forward forward(Context& ctx, const Shards& in) {
  Tensor queries = in.q;
  std::vector<Tensor> saved;
  for (std::int64_t layer = 0; layer < in.problem.layer_count(); ++layer) {
    const Problem problem = layer_of(in.problem, layer);
    const Forward result =
        kind_of(problem).forward(ctx, shards_of(ctx, in, problem, layer, queries));
    keep(saved, queries, result);
    queries = result.out;
  }
  return {queries, {}, saved};
}

Gradients backward(Context& ctx, const Shards& in, const Forward& forward, const Tensor& d_out) {
  const DType dtype = in.problem.dtype;
  const std::int64_t G = in.problem.shape.G;
  Gradients result{d_out, ctx.memory.allocate(dtype, in.k.shape(), "d_k"),
                   ctx.memory.allocate(dtype, in.v.shape(), "d_v")};
  if (in.log_decay.defined())
    result.d_log_decay = zeros(ctx, in.log_decay.dtype(), in.log_decay.shape(), "d_log_decay");
  for (std::int64_t layer = in.problem.layer_count() - 1; layer >= 0; --layer) {
    const Problem problem = layer_of(in.problem, layer);
    const auto kept = forward.saved.begin() + layer * static_cast<std::ptrdiff_t>(kKept);
    const Shards shards = shards_of(ctx, in, problem, layer, kept[0]);
    const Forward saved{kept[1], kept[2], {kept + 3, kept + kKept}};
    const Gradients g = kind_of(problem).backward(ctx, shards, saved, result.d_q);
    result.d_q = g.d_q;
    ctx.kernels.copy(result.d_k.slice(2, layer * G, (layer + 1) * G), g.d_k);
    ctx.kernels.copy(result.d_v.slice(2, layer * G, (layer + 1) * G), g.d_v);
    if (g.d_log_decay.defined()) ctx.kernels.add(result.d_log_decay, g.d_log_decay);
  }
  return result;
}

Cost cost(const Problem& problem, const Layout& layout, const World& world, int rank) {
  Cost sum;
  for (std::int64_t layer = 0; layer < problem.layer_count(); ++layer) {
    const Problem one = layer_of(problem, layer);
    const Cost cost = kind_of(one).cost(one, layout, world, rank);
    sum.forward += cost.forward;
    sum.backward += cost.backward;
  }
  return sum;
}

Support supports(const Problem& problem, const World&) {
  if (problem.family() == Family::kHybrid) return {};
  return tl::unexpected(Unsupported{"it runs stacks of linear and softmax layers"});
}

}  // namespace

const Algorithm kLasp2h{
    .id = "lasp2h",
    .title = "LASP-2H",
    .paper = "Sun et al. 2025, arXiv:2502.07563",
    .pattern = "all-gather of states, or of K and V, layer by layer",
    .family = Family::kHybrid,
    .sharding = Sharding::kContiguous,
    .supports = supports,
    .cost = cost,
    .forward = forward,
    .backward = backward,
};

}  // namespace sp
