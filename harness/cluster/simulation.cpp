// The two modes: phantom and carrying.
// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/simulation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "harness/cluster/sim_cluster.hpp"
#include "harness/cluster/sim_communicator.hpp"
#include "harness/run/meter.hpp"
#include "harness/run/phantom.hpp"

namespace sp {
namespace {

std::int64_t capacity_of(const Platform& platform, const SimulationOptions& options) {
  return options.unlimited_memory ? PhantomMemory::kUnlimited
                                  : static_cast<std::int64_t>(platform.device.memory_bytes);
}

// Runs body(machine, rank) on phantom machines.
void run_phantoms(SimCluster& cluster, const SimulationOptions& options,
                  const std::function<void(Machine&, int)>& body) {
  const auto group = SimCommunicator::world_group(cluster);
  cluster.run([&](int rank) {
    PhantomMemory memory(capacity_of(cluster.platform(), options), options.resident_bytes);
    PhantomKernels kernels;
    SimClock clock(cluster, rank);
    kernels.observe(&clock);
    const auto comm = SimCommunicator::world(cluster, rank, group);
    Machine machine{*comm, kernels, memory};
    body(machine, rank);
  });
}

void check_world(const World& world) {
  if (world.node_size < 1 || world.size % world.node_size != 0) {
    throw Error(ErrorKind::kUsage,
                fmt::format("impossible mesh: {} ranks per node do not divide {} ranks",
                            world.node_size, world.size));
  }
  if (world.splits < 1) {
    throw Error(ErrorKind::kUsage,
                fmt::format("splits = {} is impossible; allowed: 1 or more", world.splits));
  }
}

// Times one pass, which all ranks begin together.
class PassClock {
 public:
  PassClock(SimCluster& cluster, PassPrediction& pass) : cluster_(cluster), pass_(pass) {}

  // f() of a rank between two meetings.
  template <class F>
  auto time(int rank, F&& f) {
    cluster_.meet(rank);
    SimEngine& engine = cluster_.engine();
    const SimRank before = cluster_.rank(rank);
    const double begin = engine.now();
    const std::int64_t bytes = engine.flow_bytes();
    auto result = f();
    const SimRank& after = cluster_.rank(rank);
    const double compute = after.compute_s - before.compute_s;
    pass_.time_s = std::max(pass_.time_s, engine.now() - begin);
    pass_.busiest_s = std::max(pass_.busiest_s, compute);
    pass_.compute_s += compute / cluster_.size();
    pass_.exposed_s += (after.waiting_s - before.waiting_s) / cluster_.size();
    cluster_.meet(rank);
    if (rank == 0) pass_.flow_bytes = engine.flow_bytes() - bytes;
    return result;
  }

 private:
  SimCluster& cluster_;
  PassPrediction& pass_;
};

}  // namespace

Prediction simulate(const Platform& platform, const Algorithm& algorithm, const Problem& problem,
                    const World& world, const SimulationOptions& options) {
  validate(problem);
  SimCluster cluster(platform, world.size, options.placement, options.timeline);
  check_world(world);
  Prediction prediction;
  prediction.band = platform.band;
  if (const Support support = algorithm.supports(problem, world); !support) {
    prediction.status = RowStatus::kSkipped;
    prediction.reason = support.error().reason;
    return prediction;
  }
  const Layout layout(algorithm.sharding, problem.shape.N, world.size);
  std::vector<Measured> costs(static_cast<std::size_t>(world.size));
  PassClock forward_clock(cluster, prediction.forward);
  PassClock backward_clock(cluster, prediction.backward);
  try {
    run_phantoms(cluster, options, [&](Machine& machine, int rank) {
      Context ctx{machine.comm, machine.kernels, machine.memory, world.node_size, world.splits};
      Measured& cost = costs[static_cast<std::size_t>(rank)];
      const Shards shards = phantom_shards(problem, layout, rank, machine.memory);
      const Forward forward = forward_clock.time(rank, [&] {
        const Meter meter(machine);
        Forward result = algorithm.forward(ctx, shards);
        cost.forward = meter.read();
        return result;
      });
      if (!options.backward) return;
      const Tensor d_out = phantom_d_out(problem, layout, rank, machine.memory);
      backward_clock.time(rank, [&] {
        const Meter meter(machine);
        Gradients result = algorithm.backward(ctx, shards, forward, d_out);
        cost.backward = meter.read();
        return result;
      });
    });
  } catch (const OutOfMemory& full) {
    Prediction none;
    none.status = RowStatus::kOom;
    none.reason = full.what();
    none.band = platform.band;
    return none;
  }
  prediction.status = RowStatus::kOk;
  prediction.ranks = std::move(costs);
  return prediction;
}

PhantomRun run_phantom(const Platform& platform, int ranks,
                       const std::function<void(Machine&)>& body,
                       const SimulationOptions& options) {
  SimCluster cluster(platform, ranks, options.placement, options.timeline);
  PhantomRun result;
  result.rank_end_s.resize(static_cast<std::size_t>(ranks));
  run_phantoms(cluster, options, [&](Machine& machine, int rank) {
    body(machine);
    result.rank_end_s[static_cast<std::size_t>(rank)] = cluster.engine().now();
  });
  result.time_s = *std::ranges::max_element(result.rank_end_s);
  result.flow_bytes = cluster.engine().flow_bytes();
  return result;
}

}  // namespace sp
