// The life of operations: a stream takes them up in order, moves their bytes, delivers their data.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "harness/cluster/sim_group.hpp"
#include "optimized/comm/host_buffer.hpp"
#include "optimized/sharding/layout.hpp"

namespace sp {
namespace {

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

void trace_message(const SimGroup& group, const SimMessage& message) {
  SimCluster& cluster = group.cluster;
  if (!cluster.traced()) return;
  const Envelope& envelope = message.envelope;
  const double end = cluster.engine().now();
  Span span{message.from,
            TraceLane::kSend,
            envelope.label.tensor,
            message.started_s,
            end,
            envelope.bytes,
            0,
            envelope.label.step,
            message.to,
            group.channel};
  cluster.trace(span);
  span.rank = message.to;
  span.lane = TraceLane::kReceive;
  span.peer = message.from;
  cluster.trace(span);
}

void exchange(SimOperation& operation) {
  SimGroup& group = *operation.group;
  SimCluster& cluster = group.cluster;
  // Whose second side comes last starts the message.
  std::vector<Flow> flows;
  std::vector<std::shared_ptr<SimMessage>> started;
  for (const auto& message : operation.messages) {
    if (++message->reached < 2) continue;
    message->started_s = cluster.engine().now();
    const bool local = message->from == message->to;
    const double latency =
        local ? 0
              : cluster.wires().latency(cluster.device(message->from), cluster.device(message->to));
    flows.push_back(
        {message->from, message->to, local ? 0 : message->envelope.bytes, group.channel, latency});
    started.push_back(message);
    for (const auto& side : {message->sender.lock(), message->receiver.lock()}) {
      if (side != nullptr) side->begin_moving();
    }
  }
  cluster.engine().move(flows, [&](std::size_t arrived) {
    SimMessage& message = *started[arrived];
    trace_message(group, message);
    deliver(message);
    message.arrived = true;
    for (const auto& side : {message.sender.lock(), message.receiver.lock()}) {
      if (side != nullptr) side->arrivals.open();
    }
  });
  for (std::size_t i = 0; i < operation.messages.size(); ++i) operation.arrivals.pass();
}

CollectiveBytes bytes_of(const SimMeeting& meeting, const SimGroup& group) {
  const auto request = [&](int rank) -> const Request& {
    return meeting.operations[index(rank)].lock()->request;
  };
  CollectiveBytes bytes{request(0).pattern, {}, request(0).root, {}};
  for (int rank = 0; rank < group.size(); ++rank) {
    const Request& mine = request(rank);
    switch (bytes.pattern) {
      case Pattern::kExchange:
        break;
      case Pattern::kAllGather:
        bytes.parts.push_back(mine.sends.front().data.bytes());
        break;
      case Pattern::kReduceScatter:
        bytes.parts.push_back(mine.receives.front().data.bytes());
        break;
      case Pattern::kAllReduce: {
        const std::int64_t all = mine.receives.front().data.bytes();
        bytes.parts.push_back(part_begin(all, group.size(), rank + 1) -
                              part_begin(all, group.size(), rank));
        break;
      }
      case Pattern::kAllToAll:
        for (const Message& send : mine.sends) bytes.pairs.push_back(send.data.bytes());
        break;
      case Pattern::kBroadcast:
        bytes.parts.push_back(rank == bytes.root ? mine.sends.front().data.bytes() : 0);
        break;
    }
  }
  return bytes;
}

void trace_collective(const SimOperation& operation, double begin, std::int64_t sent,
                      std::int64_t received) {
  const SimGroup& group = *operation.group;
  const Label& label = operation.first().label;
  Span span{operation.world_rank(),
            TraceLane::kSend,
            label.tensor,
            begin,
            group.cluster.engine().now(),
            sent,
            0,
            label.step,
            -1,
            group.channel};
  group.cluster.trace(span);
  span.lane = TraceLane::kReceive;
  span.bytes = received;
  group.cluster.trace(span);
}

// What an all-to-all takes at least (CommModel::fan_bandwidth), given what every rank sends.
double fan_seconds(const SimGroup& group, Pattern pattern, const std::vector<std::int64_t>& sent) {
  const double bandwidth = group.cluster.platform().comm.fan_bandwidth;
  const int peers = group.size() - 1;
  if (pattern != Pattern::kAllToAll || peers < 2 || bandwidth <= 0) return 0;
  return static_cast<double>(*std::ranges::max_element(sent)) * peers / bandwidth;
}

// Of the rank that comes last, on behalf of all.
void run_collective(const SimMeeting& meeting, SimGroup& group) {
  SimEngine& engine = group.cluster.engine();
  for (const auto& each : meeting.operations) each.lock()->begin_moving();
  const double begin = engine.now();
  std::vector<std::int64_t> sent(group.members.size()), received(group.members.size());
  const CollectiveBytes bytes = bytes_of(meeting, group);
  for (const Stage& stage : group.planner.plan(bytes).stages) {
    std::vector<Flow> flows;
    for (const Hop& hop : stage.hops) {
      flows.push_back(
          {group.world_rank(hop.from), group.world_rank(hop.to), hop.bytes, group.channel});
      sent[index(hop.from)] += hop.bytes;
      received[index(hop.to)] += hop.bytes;
    }
    engine.sleep(group.planner.latency_s(stage));
    const double flowing = engine.now();
    engine.move(flows);
    engine.sleep(flowing + fan_seconds(group, bytes.pattern, sent) - engine.now());
  }
  deliver(meeting);
  for (const auto& each : meeting.operations) {
    const std::shared_ptr<SimOperation> operation = each.lock();
    if (group.cluster.traced()) {
      trace_collective(*operation, begin, sent[index(operation->rank)],
                       received[index(operation->rank)]);
    }
    operation->arrivals.open();
  }
}

}  // namespace

void serve(SimStream& stream) {
  for (;;) {
    stream.posted.pass();
    const std::shared_ptr<SimOperation> operation = stream.queue.front();
    SimCluster& cluster = operation->group->cluster;
    cluster.engine().sleep(cluster.platform().comm.operation_s);
    if (operation->exchanges()) {
      exchange(*operation);
    } else {
      SimMeeting& meeting = *operation->meeting;
      if (++meeting.reached == operation->group->size()) run_collective(meeting, *operation->group);
      operation->arrivals.pass();
    }
    stream.queue.pop_front();
    operation->finish();
  }
}

void SimOperation::begin_moving() {
  if (moving) return;
  moving = true;
  group->cluster.engine().begin_moving(world_rank());
}

void SimOperation::finish() {
  if (moving) group->cluster.engine().end_moving(world_rank());
  done = true;
  finished.open();
}

void SimOperation::drop() {
  for (const auto& message : messages) {
    if (message->receiver.lock().get() == this) message->target = {};
  }
  for (Message& send : request.sends) send.data = {};
  for (Message& receive : request.receives) receive.data = {};
}

std::string SimOperation::describe_wait() const {
  constexpr int kShown = 4;
  std::vector<std::string> words;
  if (meeting != nullptr) {
    std::vector<int> missing;
    for (int each = 0; each < group->size(); ++each) {
      if (meeting->operations[index(each)].expired()) missing.push_back(group->world_rank(each));
    }
    const Message& message = first();
    const std::string what = fmt::format("for the {} of {}", name_of(request.pattern),
                                         describe(envelope_of(request.pattern, message)));
    return missing.empty() ? what
                           : fmt::format("{}, which lacks rank {}", what, fmt::join(missing, ", "));
  }
  int undone = 0;
  for (const bool sends : {false, true}) {  // what a rank lacks says more than what it offers
    for (const auto& message : messages) {
      const bool is_send = message->sender.lock().get() == this;
      if (is_send != sends || message->arrived || undone++ >= kShown) continue;
      words.push_back(
          sp::describe_wait(is_send, is_send ? message->to : message->from, message->envelope));
    }
  }
  if (undone > kShown) words.push_back(fmt::format("and {} more", undone - kShown));
  return fmt::format("{}", fmt::join(words, ", "));
}

}  // namespace sp
