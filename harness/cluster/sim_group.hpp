// What the ranks of one simulated communicator share: messages and collectives that some have
// posted and others have not yet.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "harness/cluster/collective_plan.hpp"
#include "harness/cluster/engine.hpp"
#include "harness/cluster/sim_cluster.hpp"
#include "optimized/comm/envelope.hpp"

namespace sp {

struct SimOperation;

// A message between two ranks, from the first post of either side until it has arrived.
struct SimMessage {
  int from = 0, to = 0;  // ranks of the world
  Envelope envelope;
  std::weak_ptr<SimOperation> sender, receiver;
  Tensor content;   // what was sent; undefined without data
  Tensor target;    // of the receiver; undefined until it has posted
  int reached = 0;  // sides whose streams have come to it
  double started_s = 0;
  bool arrived = false;
};

// One collective of all ranks of a communicator.
struct SimMeeting {
  std::vector<std::weak_ptr<SimOperation>> operations;  // by rank
  int posted = 0, reached = 0;
};

// A call of split.
struct SimSplit {
  struct Choice {
    int colour = 0, key = 0;
    bool made = false;
  };
  std::vector<Choice> choices;  // by rank
  int made = 0;
  std::map<int, std::shared_ptr<struct SimGroup>> groups;  // by colour, once all have chosen
  Gate decided;
};

struct SimGroup {
  SimGroup(SimCluster& cluster, std::vector<int> members_by_rank, int channel_number);

  SimCluster& cluster;
  std::vector<int> members;  // ranks of the world
  int channel;
  CollectivePlanner planner;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<SimMessage>>> unmatched;  // (from, to)
  std::map<std::int64_t, std::shared_ptr<SimMeeting>> meetings;                      // by number
  std::map<std::int64_t, std::shared_ptr<SimSplit>> splits;                          // by number

  int size() const { return static_cast<int>(members.size()); }
  int world_rank(int rank) const { return members[static_cast<std::size_t>(rank)]; }
};

// One operation of one rank, from its post until its stream has done it.
struct SimOperation : std::enable_shared_from_this<SimOperation> {
  std::shared_ptr<SimGroup> group;
  int rank = 0;                  // in the group
  Request request;               // its tensors are the program's
  std::vector<Tensor> contents;  // of the sends of a collective, or of what it sums in place
  std::vector<std::shared_ptr<SimMessage>> messages;  // of an exchange
  std::shared_ptr<SimMeeting> meeting;                // of a collective
  bool moving = false, done = false;
  Gate arrivals;  // opened once per message, or once by the meeting
  Gate finished;

  int world_rank() const { return group->world_rank(rank); }
  bool exchanges() const { return request.pattern == Pattern::kExchange; }
  // Its first message says what it is.
  const Message& first() const {
    return request.sends.empty() ? request.receives.front() : request.sends.front();
  }
  void begin_moving();
  void finish();
  // Lets go of the program's tensors, which may be about to lose their memory.
  void drop();
  std::string describe_wait() const;  // what is still missing
};

// The operations of one rank on one communicator, done one after the other.
struct SimStream {
  std::deque<std::shared_ptr<SimOperation>> queue;
  Gate posted;
};

// The envelope of what a collective sends to, or expects from, another rank.
Envelope outgoing(const SimOperation& operation, int to);
Envelope incoming(const SimOperation& operation, int from);

// Snapshots of what the operation sends; where there is data.
Tensor snapshot(const Tensor& tensor);
// Data of a message, or of a collective whose ranks have all posted, into the receivers' tensors.
void deliver(SimMessage& message);
void deliver(const SimMeeting& meeting);

// The task of a stream.
void serve(SimStream& stream);

}  // namespace sp
