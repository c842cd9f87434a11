// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/lasp2/layers.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "harness/papers/counted.hpp"
#include "optimized/algorithms/blocks.hpp"
#include "optimized/algorithms/lasp1.hpp"
#include "optimized/algorithms/linear_chunk.hpp"

namespace sp {
namespace {

// Sends the state `direction` ranks on when `work` has used what came from the other side.
// Undecayed modules only.
template <class Work>
void chain(Context& ctx, const LinearChunk& chunk, int direction, const Tensor& arriving,
           const Tensor& own, Work&& work) {
  const int P = ctx.comm.size(), from = ctx.comm.rank() - direction,
            to = ctx.comm.rank() + direction;
  if (from >= 0 && from < P) ctx.comm.exchange({}, {{from, arriving, {"state", 0}}}).wait();
  work();
  if (to < 0 || to >= P) return;
  const Tensor leaving = chunk.state("state");
  ctx.kernels.copy(leaving, arriving);
  const StateSpan span = chunk.span(own, ctx.comm.rank(), {});
  ctx.kernels.linear_accumulate(leaving, {&span, 1}, chunk.terms());
  ctx.comm.exchange({{to, leaving, {"state", 0}}}, {}).wait();
}

// Sums the states of the ranks on the side that `direction` comes from, while all of them go round.
template <class Work>
void circulate(Context& ctx, const LinearChunk& chunk, int direction, const Tensor& sum,
               const Tensor& own, Work&& work) {
  const int P = ctx.comm.size(), rank = ctx.comm.rank();
  const int from = (rank - direction + P) % P, to = (rank + direction + P) % P;
  Tensor here = own, there = chunk.state("state");
  for (int step = 1; step < P; ++step) {
    const Label label{"state", step};
    ctx.comm.exchange({{to, here, label}}, {{from, there, label}}).wait();
    const int source = rank - direction * step;
    if (source >= 0 && source < P) {
      const StateSpan span = chunk.span(there, source, {});
      ctx.kernels.linear_accumulate(sum, {&span, 1}, chunk.terms());
    }
    std::swap(here, there);
  }
  work();
}

enum class Way : std::uint8_t { kChain, kRing };

template <Way kWay>
Forward forward(Context& ctx, const Shards& in) {
  const LinearChunk chunk(ctx, in);
  const Tensor sums = chunk.sums(), own = chunk.message();
  ctx.kernels.linear_forward(chunk.block(), {}, sums, {});
  const Tensor before = chunk.zero_state("before");
  const auto use = [&] { ctx.kernels.linear_inter(chunk.block(), before, sums); };
  if (kWay == Way::kChain) {
    chain(ctx, chunk, 1, before, own, use);
  } else {
    circulate(ctx, chunk, 1, before, own, use);
  }
  return chunk.finish(sums, before, {});
}

template <Way kWay>
Gradients backward(Context& ctx, const Shards& in, const Forward& saved, const Tensor& d_out) {
  const LinearChunk chunk(ctx, in);
  const Tensor d_sums = chunk.d_sums(saved, d_out), own = chunk.state("d_state");
  const LinearGradients gradients = chunk.zero_gradients();
  ctx.kernels.linear_d_state(chunk.block(), d_sums, own);
  ctx.kernels.linear_d_q(chunk.block(), LinearChunk::before(saved), d_sums, gradients, {});
  ctx.kernels.linear_d_kv(chunk.block(), {}, d_sums, gradients, {});
  const Tensor d_after = chunk.zero_state("d_after");
  const auto use = [&] { ctx.kernels.linear_d_kv_inter(chunk.block(), d_after, gradients); };
  if (kWay == Way::kChain) {
    chain(ctx, chunk, -1, d_after, own, use);
  } else {
    circulate(ctx, chunk, -1, d_after, own, use);
  }
  return chunk.finish(gradients, {}, d_after);
}

template <Way kWay>
Algorithm reading(const char* id, const char* title) {
  Algorithm algorithm = kLasp1;
  algorithm.id = id;
  algorithm.title = title;
  algorithm.forward = forward<kWay>;
  algorithm.backward = backward<kWay>;
  algorithm.supports = [](const Problem& problem, const World&) -> Support {
    if (Support support = causal_linear(problem); !support) return support;
    if (problem.module != Module::kBasic)
      return tl::unexpected(Unsupported{"only states without decay are replayed"});
    return {};
  };
  return algorithm;
}

}  // namespace

const Algorithm kLasp1Printed = reading<Way::kChain>("lasp1, as printed", "LASP-1, as printed");
const Algorithm kStateRing = reading<Way::kRing>("ring of states", "states in a ring");

Lasp2Model::Lasp2Model(const ReplayContext& context)
    : platform(context.platform("platform")),
      layers(context.config.integer("layers", 1, 1024)),
      heads(context.config.integer("heads", 1, 1024)),
      head_size(context.config.integer("head_size", 1, 1024)) {}

Prediction Lasp2Model::layer(const Platform& on, const Algorithm& algorithm, const Shape& shape,
                             int ranks, int splits) const {
  const Problem problem = algorithm.family == Family::kLinear
                              ? linear_problem(Module::kBasic, shape, DType::kBF16)
                              : softmax_problem(shape, DType::kBF16, true);
  const World world{ranks, std::min(ranks, on.node.devices), splits};
  SimulationOptions options;
  options.unlimited_memory = true;
  Prediction prediction = simulate(on, algorithm, problem, world, options);
  if (prediction.status != RowStatus::kOk)
    throw Error(ErrorKind::kUsage, fmt::format("{}: {}", algorithm.id, prediction.reason));
  return prediction;
}

std::string kibi(std::int64_t tokens) {
  return tokens % 1024 == 0 ? fmt::format("{}K", tokens / 1024) : fmt::format("{}", tokens);
}

}  // namespace sp
