// SPDX-License-Identifier: Apache-2.0
#include "harness/run/execute.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "harness/run/distribute.hpp"
#include "harness/run/meter.hpp"

namespace sp {
namespace {

// Collects every rank's tensor on rank 0, in rank order; elsewhere the result is empty.
// shape_of(rank) must be known everywhere. Posts all receives before it waits: one exchange.
template <class ShapeOf>
std::vector<Tensor> gather(Machine& machine, const Tensor& mine, ShapeOf&& shape_of,
                           const char* name) {
  std::vector<Tensor> all;
  std::vector<Message> sends, receives;
  if (machine.comm.rank() != 0) {
    sends.push_back({0, mine, {name, 0}});
  } else {
    all.push_back(mine);
    for (int rank = 1; rank < machine.comm.size(); ++rank) {
      all.push_back(machine.memory.allocate(mine.dtype(), shape_of(rank), name));
      receives.push_back({rank, all.back(), {name, 0}});
    }
  }
  machine.comm.exchange(std::move(sends), std::move(receives)).wait();
  return all;
}

HostTensor gather_tokens(Machine& machine, const Layout& layout, const Tensor& mine,
                         const char* name) {
  const auto rows = [&](int rank) {
    return Tensor::Extents{layout.count(rank), mine.extent(1), mine.extent(2), mine.extent(3)};
  };
  const std::vector<Tensor> all = gather(machine, mine, rows, name);
  if (all.empty()) return {};
  HostTensor whole(mine.dtype(), {mine.extent(1), layout.size(), mine.extent(2), mine.extent(3)});
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    place(whole, all[static_cast<std::size_t>(rank)], layout.tokens(rank), machine.memory);
  }
  return whole;
}

// Where U ranks share the heads, each has U ranks' tokens of its own heads.
HostTensor gather_lse(Machine& machine, const Layout& layout, const Tensor& mine, std::int64_t H) {
  const int U = static_cast<int>(H / mine.extent(2));
  const Layout groups = layout.grouped(U);
  const auto rows = [&](int rank) {
    return Tensor::Extents{groups.count(rank / U), mine.extent(1), mine.extent(2), 1};
  };
  const std::vector<Tensor> all = gather(machine, mine, rows, "lse");
  if (all.empty()) return {};
  HostTensor whole(mine.dtype(), {mine.extent(1), H, layout.size()});
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    place_lse(whole, all[static_cast<std::size_t>(rank)], groups.tokens(rank / U),
              rank % U * mine.extent(2), machine.memory);
  }
  return whole;
}

HostTensor gather_projection(Machine& machine, const Layout& layout, const Tensor& mine,
                             const char* name) {
  if (!mine.defined()) return {};
  const HostTensor whole = gather_tokens(machine, layout, mine, name);  // [1, N, 1, K']
  if (whole.absent()) return {};
  HostTensor flat(whole.dtype(), {whole.extent(1), whole.extent(3)});
  std::copy_n(whole.data(), static_cast<std::size_t>(whole.size()) * size_of(whole.dtype()),
              flat.data());
  return flat;
}

// The sum of all ranks' shares of what every rank holds, as one vector.
HostTensor gather_shares(Machine& machine, const Tensor& mine, const char* name) {
  const std::vector<Tensor> all = gather(machine, mine, [&](int) { return mine.shape(); }, name);
  if (all.empty()) return {};
  std::vector<double> sums(static_cast<std::size_t>(mine.elements()));
  HostTensor share(mine.dtype(), {mine.elements()});
  for (const Tensor& each : all) {
    machine.memory.download(share.data(), each);
    for (std::int64_t i = 0; i < share.size(); ++i)
      sums[static_cast<std::size_t>(i)] += share.at(i);
  }
  return HostTensor::from_doubles(mine.dtype(), {mine.elements()}, sums);
}

void gather_gradients(Machine& machine, const Layout& layout, const Problem& problem,
                      const Gradients& gradients, Outputs& outputs) {
  const Decay decay = problem.module ? decay_of(*problem.module) : Decay::kNone;
  SP_CHECK(gradients.d_projection_k.defined() == (problem.projected > 0) &&
               gradients.d_projection_v.defined() == (problem.projected > 0) &&
               gradients.d_log_decay.defined() == (decay != Decay::kNone) &&
               gradients.d_gamma.defined() == (problem.module == Module::kRebased) &&
               gradients.d_beta.defined() == gradients.d_gamma.defined(),
           "an algorithm returns the gradients of all inputs that there are, and no others");
  outputs.d_q = gather_tokens(machine, layout, gradients.d_q, "d_q");
  outputs.d_k = gather_tokens(machine, layout, gradients.d_k, "d_k");
  outputs.d_v = gather_tokens(machine, layout, gradients.d_v, "d_v");
  outputs.d_projection_k =
      gather_projection(machine, layout, gradients.d_projection_k, "d_projection_k");
  outputs.d_projection_v =
      gather_projection(machine, layout, gradients.d_projection_v, "d_projection_v");
  if (decay == Decay::kPerChannel)
    outputs.d_log_decay = gather_tokens(machine, layout, gradients.d_log_decay, "d_log_decay");
  if (decay == Decay::kPerHead)
    outputs.d_log_decay = gather_shares(machine, gradients.d_log_decay, "d_log_decay");
  if (gradients.d_gamma.defined()) {
    outputs.d_gamma = gather_shares(machine, gradients.d_gamma, "d_gamma");
    outputs.d_beta = gather_shares(machine, gradients.d_beta, "d_beta");
  }
}

// The measurements of all ranks, as doubles (exact below 2^53), on rank 0.
std::vector<Measured> gather_costs(Machine& machine, const Measured& mine) {
  const std::array<std::int64_t, 8> values{mine.forward.bytes_sent,  mine.forward.messages_sent,
                                           mine.forward.flops,       mine.forward.peak_bytes,
                                           mine.backward.bytes_sent, mine.backward.messages_sent,
                                           mine.backward.flops,      mine.backward.peak_bytes};
  std::array<double, 8> packed{};
  std::copy(values.begin(), values.end(), packed.begin());
  const Tensor tensor = machine.memory.allocate(DType::kF64, {8, 1, 1, 1}, "cost");
  machine.memory.upload(tensor, packed.data());
  std::vector<Measured> costs;
  for (const Tensor& each :
       gather(machine, tensor, [](int) { return Tensor::Extents{8, 1, 1, 1}; }, "cost")) {
    machine.memory.download(packed.data(), each);
    std::array<std::int64_t, 8> v{};
    // What a wrong algorithm left may not be a number.
    std::transform(packed.begin(), packed.end(), v.begin(), [](double value) {
      return std::abs(value) < 0x1p53 ? static_cast<std::int64_t>(value) : -1;
    });
    costs.push_back({{{v[0], v[1], v[2]}, v[3]}, {{v[4], v[5], v[6]}, v[7]}});
  }
  return costs;
}

}  // namespace

void validate(const World& world, const Backend& backend) {
  if (world.size < 1 || world.size > backend.most_ranks()) {
    throw Error(ErrorKind::kUsage, fmt::format("ranks = {} is impossible; back-end {} allows 1..{}",
                                               world.size, backend.name(), backend.most_ranks()));
  }
  if (world.node_size < 1 || world.size % world.node_size != 0) {
    throw Error(ErrorKind::kUsage,
                fmt::format("impossible mesh: {} ranks per node do not divide {} ranks",
                            world.node_size, world.size));
  }
  if (world.splits < 1)
    throw Error(ErrorKind::kUsage,
                fmt::format("splits = {} is impossible; allowed: 1 or more", world.splits));
}

Execution execute(Backend& backend, const Rig& rig, const Algorithm& algorithm,
                  const Problem& problem, const Inputs& inputs, const World& world) {
  validate(world, backend);
  if (problem.dtype == DType::kF64 && !backend.knows_f64())
    throw Error(
        ErrorKind::kUsage,
        fmt::format("back-end {} does not know f64; allowed: f32, bf16, f16", backend.name()));
  if (const Support support = algorithm.supports(problem, world); !support) {
    throw Error(ErrorKind::kUsage,
                fmt::format("{} refuses: {}", algorithm.id, support.error().reason));
  }
  const Layout layout(algorithm.sharding, problem.shape.N, world.size);
  Execution result;
  backend.run(world.size, rig, [&](Machine& machine) {
    Context ctx{machine.comm, machine.kernels, machine.memory, world.node_size, world.splits};
    const int rank = machine.comm.rank();
    const Shards shards = scatter(problem, inputs, layout, rank, machine.memory);
    Measured measured;
    Outputs outputs;
    const Meter forward_meter(machine);
    const Forward forward = algorithm.forward(ctx, shards);
    measured.forward = forward_meter.read();
    outputs.out = gather_tokens(machine, layout, forward.out, "out");
    if (forward.lse.defined())
      outputs.lse = gather_lse(machine, layout, forward.lse, problem.shape.H);
    if (!inputs.d_out.absent()) {
      const Tensor d_out = scatter(inputs.d_out, layout.tokens(rank), machine.memory, "d_out");
      const Meter backward_meter(machine);
      const Gradients gradients = algorithm.backward(ctx, shards, forward, d_out);
      measured.backward = backward_meter.read();
      gather_gradients(machine, layout, problem, gradients, outputs);
    }
    std::vector<Measured> costs = gather_costs(machine, measured);
    if (rank == 0) result = {std::move(outputs), std::move(costs)};
  });
  return result;
}

}  // namespace sp
