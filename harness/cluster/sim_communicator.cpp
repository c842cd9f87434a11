// Posting, matching, waiting and splitting.
// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/sim_communicator.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "harness/cluster/sim_group.hpp"

namespace sp {

class SimCommunicator::Handle final : public Operation {
 public:
  Handle(std::shared_ptr<SimOperation> operation, std::shared_ptr<SimStream> stream)
      : operation_(std::move(operation)), stream_(std::move(stream)) {}
  ~Handle() override { operation_->drop(); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  void wait() override {
    if (operation_->done) return;
    SimCluster& cluster = operation_->group->cluster;
    SimRank& rank = cluster.rank(operation_->world_rank());
    const double begin = cluster.engine().now();
    // An older operation of the stream may be what everybody waits for.
    rank.waits = [this] { return stream_->queue.front()->describe_wait(); };
    operation_->finished.pass();
    rank.waits = nullptr;
    const double end = cluster.engine().now();
    rank.waiting_s += end - begin;
    if (!cluster.traced()) return;
    const Label& label = operation_->first().label;
    cluster.trace({operation_->world_rank(), TraceLane::kWait, label.tensor, begin, end, 0, 0,
                   label.step, -1, operation_->group->channel});
  }

 private:
  std::shared_ptr<SimOperation> operation_;
  std::shared_ptr<SimStream> stream_;
};

SimCommunicator::SimCommunicator(std::shared_ptr<SimGroup> group, int rank,
                                 std::shared_ptr<Traffic> traffic)
    : Communicator(rank, group->size(), std::move(traffic)),
      group_(std::move(group)),
      stream_(std::make_shared<SimStream>()) {
  group_->cluster.engine().start_stream(group_->world_rank(rank),
                                        [stream = stream_] { serve(*stream); });
}

std::unique_ptr<Communicator> SimCommunicator::world(SimCluster& cluster, int rank,
                                                     std::shared_ptr<SimGroup> group) {
  cluster.rank(rank).channels = 1;
  return std::unique_ptr<Communicator>(
      new SimCommunicator(std::move(group), rank, std::make_shared<Traffic>()));
}

std::shared_ptr<SimGroup> SimCommunicator::world_group(SimCluster& cluster) {
  std::vector<int> members(static_cast<std::size_t>(cluster.size()));
  std::iota(members.begin(), members.end(), 0);
  return std::make_shared<SimGroup>(cluster, std::move(members), 0);
}

std::unique_ptr<Operation> SimCommunicator::start(Request request) {
  const auto operation = std::make_shared<SimOperation>();
  operation->group = group_;
  operation->rank = rank();
  operation->request = std::move(request);
  auto handle = std::make_unique<Handle>(operation, stream_);
  const Request& posted = operation->request;
  bool alone = false;  // nothing to wait for
  if (operation->exchanges()) {
    alone = posted.sends.empty() && posted.receives.empty();
    for (const Message& send : posted.sends) post_message(*operation, send, true);
    for (const Message& receive : posted.receives) post_message(*operation, receive, false);
  } else {
    alone = size() == 1;
    join(*operation);
  }
  if (alone) {
    if (operation->meeting != nullptr) deliver(*operation->meeting);
    operation->done = true;
  } else {
    stream_->queue.push_back(operation);
    stream_->posted.open();
  }
  return handle;
}

// Pairs the side with the oldest unmatched one of the opposite direction, or leaves it for that.
void SimCommunicator::post_message(SimOperation& operation, const Message& message, bool is_send) {
  const int from = is_send ? rank() : message.peer, to = is_send ? message.peer : rank();
  const Envelope envelope = envelope_of(operation.request.pattern, message);
  auto& queue = group_->unmatched[{from, to}];
  std::shared_ptr<SimMessage> matched;
  const bool second =
      !queue.empty() && (is_send ? queue.front()->sender : queue.front()->receiver).expired();
  if (second) {
    matched = queue.front();
    queue.pop_front();
    if (!matches(matched->envelope, envelope)) {
      const Envelope& sent = is_send ? envelope : matched->envelope;
      const Envelope& expected = is_send ? matched->envelope : envelope;
      throw Error(ErrorKind::kInternal,
                  describe_mismatch(matched->from, sent, matched->to, expected));
    }
  } else {
    matched = std::make_shared<SimMessage>();
    matched->from = group_->world_rank(from);
    matched->to = group_->world_rank(to);
    matched->envelope = envelope;
    queue.push_back(matched);
  }
  if (is_send) {
    matched->sender = operation.weak_from_this();
    matched->content = snapshot(message.data);
  } else {
    matched->receiver = operation.weak_from_this();
    matched->target = message.data;
  }
  operation.messages.push_back(matched);
}

void SimCommunicator::join(SimOperation& operation) {
  const Request& request = operation.request;
  const std::vector<Message>& sent =
      request.pattern == Pattern::kAllReduce ? request.receives : request.sends;
  for (const Message& each : sent) operation.contents.push_back(snapshot(each.data));

  const std::int64_t number = collectives_++;
  auto& place = group_->meetings[number];
  if (place == nullptr) {
    place = std::make_shared<SimMeeting>();
    place->operations.resize(group_->members.size());
  }
  const std::shared_ptr<SimMeeting> meeting = place;
  operation.meeting = meeting;
  meeting->operations[static_cast<std::size_t>(rank())] = operation.weak_from_this();
  if (++meeting->posted == size()) group_->meetings.erase(number);
  const auto check = [](const SimOperation& from, const SimOperation& to) {
    const Envelope sends = outgoing(from, to.rank), expects = incoming(to, from.rank);
    if (matches(sends, expects)) return;
    throw Error(ErrorKind::kInternal,
                describe_mismatch(from.world_rank(), sends, to.world_rank(), expects));
  };
  for (const auto& weak : meeting->operations) {
    const std::shared_ptr<SimOperation> other = weak.lock();
    if (other == nullptr) continue;
    if (other->request.root != request.root) {
      throw Error(ErrorKind::kInternal,
                  fmt::format("broadcasts do not match: the root is rank {} for rank {}, but rank "
                              "{} for rank {}",
                              group_->world_rank(request.root), operation.world_rank(),
                              group_->world_rank(other->request.root), other->world_rank()));
    }
    check(operation, *other);
    check(*other, operation);
  }
}

std::unique_ptr<Communicator> SimCommunicator::start_split(int colour, int key) {
  SimCluster& cluster = group_->cluster;
  const std::int64_t number = splits_++;
  auto& place = group_->splits[number];
  if (place == nullptr) {
    place = std::make_shared<SimSplit>();
    place->choices.resize(group_->members.size());
  }
  const std::shared_ptr<SimSplit> split = place;
  split->choices[static_cast<std::size_t>(rank())] = {colour, key, true};
  if (++split->made < size()) {
    SimRank& me = cluster.rank(group_->world_rank(rank()));
    me.waits = [this, split] {
      std::vector<int> missing;
      for (int each = 0; each < size(); ++each) {
        if (!split->choices[static_cast<std::size_t>(each)].made) {
          missing.push_back(group_->world_rank(each));
        }
      }
      return fmt::format("for a split that lacks rank {}", fmt::join(missing, ", "));
    };
    const double begin = cluster.engine().now();
    split->decided.pass();
    me.waiting_s += cluster.engine().now() - begin;
    me.waits = nullptr;
  } else {
    group_->splits.erase(number);
    std::vector<int> order(group_->members.size());
    std::iota(order.begin(), order.end(), 0);
    const auto choice = [&](int rank) { return split->choices[static_cast<std::size_t>(rank)]; };
    std::ranges::stable_sort(order, {}, [&](int rank) { return choice(rank).key; });
    std::map<int, std::vector<int>> members;
    for (const int rank : order) members[choice(rank).colour].push_back(group_->world_rank(rank));
    for (auto& [each, ranks] : members) {
      int channel = 0;
      for (const int rank : ranks) channel = std::max(channel, cluster.rank(rank).channels);
      for (const int rank : ranks) cluster.rank(rank).channels = channel + 1;
      split->groups[each] = std::make_shared<SimGroup>(cluster, std::move(ranks), channel);
    }
    for (int other = 1; other < size(); ++other) split->decided.open();
  }
  const std::shared_ptr<SimGroup> group = split->groups.at(colour);
  const auto place_in_group =
      std::ranges::find(group->members, group_->world_rank(rank())) - group->members.begin();
  return std::unique_ptr<Communicator>(
      new SimCommunicator(group, static_cast<int>(place_in_group), shared_traffic()));
}

}  // namespace sp
