// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/counted.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "harness/run/dry_run.hpp"
#include "optimized/algorithms/registry.hpp"
#include "optimized/sharding/visibility.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

void enlarge(MeasuredPass& most, const MeasuredPass& cost) {
  most.bytes_sent = std::max(most.bytes_sent, cost.bytes_sent);
  most.messages_sent = std::max(most.messages_sent, cost.messages_sent);
  most.flops = std::max(most.flops, cost.flops);
  most.peak_bytes = std::max(most.peak_bytes, cost.peak_bytes);
}

void add(MeasuredPass& total, const MeasuredPass& cost) {
  total += cost;
  total.peak_bytes += cost.peak_bytes;
}

double lockstep_pairs(Sharding sharding, std::int64_t tokens, int ranks) {
  const Layout layout(sharding, tokens, ranks);
  const Band causal{.causal = true};
  std::int64_t pairs = 0;
  for (int step = 0; step < ranks; ++step) {
    std::int64_t busiest = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const int source = (rank - step + ranks) % ranks;
      busiest =
          std::max(busiest, visible_pairs(causal, layout.tokens(rank), layout.tokens(source)));
    }
    pairs += busiest;
  }
  return static_cast<double>(pairs);
}

}  // namespace

Counted count(const std::string& algorithm, const Problem& problem, const World& world) {
  const Algorithm* found = find_algorithm(algorithm);
  if (found == nullptr)
    throw Error(ErrorKind::kUsage, fmt::format("there is no algorithm '{}'", algorithm));
  validate(problem);
  if (const Support support = found->supports(problem, world); !support)
    throw Error(ErrorKind::kUsage, fmt::format("{}: {}", algorithm, support.error().reason));
  // Flops of all pairs, forward and backward, must fit in 64 bits.
  const Shape& shape = problem.shape;
  const double tokens = static_cast<double>(shape.N);
  if (tokens * tokens * static_cast<double>(shape.B * shape.H) *
          static_cast<double>(shape.D + shape.E) * 8 >
      9e18)
    throw Error(ErrorKind::kUsage,
                fmt::format("{}: too large to be counted in 64 bits", describe(problem)));
  const Layout layout(found->sharding, shape.N, world.size);
  Counted counted;
  for (int rank = 0; rank < world.size; ++rank) {
    const Cost cost = found->cost(problem, layout, world, rank);
    const DryRun dry = dry_run(*found, problem, world, rank);
    const Measured mine{{cost.forward, dry.forward.done.peak_bytes},
                        {cost.backward, dry.backward.done.peak_bytes}};
    enlarge(counted.most.forward, mine.forward);
    enlarge(counted.most.backward, mine.backward);
    add(counted.total.forward, mine.forward);
    add(counted.total.backward, mine.backward);
  }
  return counted;
}

Problem softmax_problem(const Shape& shape, DType dtype, bool causal) {
  Problem problem;
  problem.shape = shape;
  problem.mask.causal = causal;
  problem.dtype = dtype;
  problem.scale = default_scale(shape);
  return problem;
}

Problem linear_problem(Module module, const Shape& shape, DType dtype) {
  Problem problem;
  problem.shape = shape;
  problem.mask.causal = true;
  problem.dtype = dtype;
  problem.module = module;
  problem.epsilon = default_epsilon(module);
  return problem;
}

double lockstep_blocks(Sharding sharding, int ranks) {
  // The pairs are a polynomial of second degree in the block, without a constant.
  constexpr std::int64_t kBlock = 64;
  const double once = lockstep_pairs(sharding, kBlock * ranks, ranks);
  const double twice = lockstep_pairs(sharding, 2 * kBlock * ranks, ranks);
  return (twice - 2 * once) / (2 * kBlock * kBlock);
}

}  // namespace sp
