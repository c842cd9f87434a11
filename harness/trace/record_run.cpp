// SPDX-License-Identifier: Apache-2.0
#include "harness/trace/record_run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "harness/run/cores.hpp"
#include "harness/run/distribute.hpp"
#include "harness/run/meet.hpp"
#include "harness/trace/recorders.hpp"

namespace sp {
namespace {

using Bytes = std::vector<std::uint8_t>;

// What one rank tells of itself.
struct RankSpans {
  std::uint64_t host = 0;
  std::vector<Span> spans;
};

Bytes pack(const RankSpans& mine) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Span& s : mine.spans)
    rows.push_back({s.rank, static_cast<int>(s.lane), s.name, s.start_s, s.end_s, s.bytes, s.flops,
                    s.step, s.peer, s.channel});
  return nlohmann::json::to_cbor(nlohmann::json{{"host", mine.host}, {"spans", std::move(rows)}});
}

RankSpans unpack(const Bytes& bytes) {
  const nlohmann::json packed = nlohmann::json::from_cbor(bytes);
  RankSpans theirs{packed["host"].get<std::uint64_t>(), {}};
  for (const nlohmann::json& row : packed["spans"])
    theirs.spans.push_back({.rank = row[0],
                            .lane = static_cast<TraceLane>(row[1].get<int>()),
                            .name = row[2],
                            .start_s = row[3],
                            .end_s = row[4],
                            .bytes = row[5],
                            .flops = row[6],
                            .step = row[7],
                            .peer = row[8],
                            .channel = row[9]});
  return theirs;
}

// As whole doubles, because messages are tensors.
Tensor allocate_bytes(Memory& memory, std::int64_t bytes) {
  return memory.allocate(DType::kF64, {(bytes + 7) / 8, 1, 1, 1}, "timeline");
}

void send(Machine& machine, Bytes bytes) {
  const double size = static_cast<double>(bytes.size());
  const Tensor head = machine.memory.allocate(DType::kF64, {1, 1, 1, 1}, "timeline size");
  machine.memory.upload(head, &size);
  const Tensor body = allocate_bytes(machine.memory, static_cast<std::int64_t>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(body.bytes()));
  machine.memory.upload(body, bytes.data());
  machine.comm.exchange({{0, head, {"timeline size", 0}}, {0, body, {"timeline", 0}}}, {}).wait();
}

Bytes receive(Machine& machine, int rank) {
  const Tensor head = machine.memory.allocate(DType::kF64, {1, 1, 1, 1}, "timeline size");
  machine.comm.exchange({}, {{rank, head, {"timeline size", 0}}}).wait();
  double size = 0;
  machine.memory.download(&size, head);
  const Tensor body = allocate_bytes(machine.memory, static_cast<std::int64_t>(size));
  machine.comm.exchange({}, {{rank, body, {"timeline", 0}}}).wait();
  Bytes bytes(static_cast<std::size_t>(body.bytes()));
  machine.memory.download(bytes.data(), body);
  bytes.resize(static_cast<std::size_t>(size));
  return bytes;
}

// Everybody's spans on the leading process.
std::vector<Span> gather(Backend& backend, int ranks, const std::vector<RankSpans>& of_ranks) {
  std::vector<Span> all;
  std::atomic<bool> comparable = true;
  backend.run(ranks, {}, [&](Machine& machine) {
    const RankSpans& mine = of_ranks[static_cast<std::size_t>(machine.comm.rank())];
    if (machine.comm.rank() != 0) return send(machine, pack(mine));
    all = mine.spans;
    for (int rank = 1; rank < ranks; ++rank) {
      RankSpans theirs = unpack(receive(machine, rank));
      if (theirs.host != mine.host) comparable = false;
      all.insert(all.end(), std::make_move_iterator(theirs.spans.begin()),
                 std::make_move_iterator(theirs.spans.end()));
    }
  });
  if (!comparable)
    throw Error(ErrorKind::kEnvironment,
                "a timeline needs all ranks on one host: the clocks of several hosts differ");
  return all;
}

}  // namespace

std::vector<Span> record_run(Backend& backend, const Algorithm& algorithm, const Case& drawn,
                             const Inputs& inputs) {
  if (const std::string name = backend.name(); name != "thread" && name != "mpi")
    throw Error(ErrorKind::kUsage,
                fmt::format("no timeline of back-end {}: the host's clock does not tell what its "
                            "kernels do; allowed: thread, mpi",
                            name));
  const Layout layout(algorithm.sharding, drawn.problem.shape.N, drawn.world.size);
  const auto ranks = static_cast<std::size_t>(drawn.world.size);
  std::vector<RankSpans> of_ranks(ranks);
  std::vector<double> begins(ranks);
  Timeline timeline;
  backend.run(drawn.world.size, recording({}, timeline), [&](Machine& machine) {
    Context ctx{machine.comm, machine.kernels, machine.memory, drawn.world.node_size,
                drawn.world.splits};
    const auto rank = static_cast<std::size_t>(machine.comm.rank());
    const Shards shards =
        scatter(drawn.problem, inputs, layout, machine.comm.rank(), machine.memory);
    Tensor d_out;
    if (!inputs.d_out.absent())
      d_out = scatter(inputs.d_out, layout.tokens(machine.comm.rank()), machine.memory, "d_out");
    for (int repetition = 0; repetition < 2; ++repetition) {
      meet(machine);
      begins[rank] = trace_clock_s();
      const Forward forward = algorithm.forward(ctx, shards);
      if (d_out.defined()) algorithm.backward(ctx, shards, forward, d_out);
    }
    of_ranks[rank].host = placement_of_this_thread().host;
  });
  for (Span& span : timeline.take()) {
    const auto rank = static_cast<std::size_t>(span.rank);
    if (span.start_s >= begins[rank]) of_ranks[rank].spans.push_back(std::move(span));
  }
  return gather(backend, drawn.world.size, of_ranks);
}

}  // namespace sp
