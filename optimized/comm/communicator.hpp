// Communicator: every byte that moves between ranks goes through here.
//
// Collective rules  All ranks post the same collectives in the same order. Point-to-point messages
//                   between two ranks of one communicator match in the order of their posts.
// Several           Whatever communicators they use, ranks that meet in two operations post them in
//                   the same order, on all communicators together: no circle may come of the orders
//                   of all ranks. NCCL may hang otherwise; `checked` and the emulator find it.
// Posting           Never blocks. A message carries what the buffer held at the place of the post
//                   in the rank's program.
// Waiting           Pending::wait() orders later kernels after the operation. Between post and wait
//                   the buffers belong to the communicator: sent buffers may be read, received
//                   buffers may not be touched.
// Matching          Every message carries its label, source and size; a mismatch is an Error that
//                   names both sides.
// Limits            Every wait ends within time_limit; when it passes, all ranks say what they wait
//                   for.
// Counting          Here, once, for all back-ends: see traffic.hpp for what counts as sent.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "optimized/comm/traffic.hpp"
#include "optimized/sharding/layout.hpp"
#include "optimized/tensor.hpp"

namespace sp {

// What a message is: the same words in errors, time lines and fault injection.
struct Label {
  const char* tensor = "";  // a string literal, e.g. "k"
  int step = 0;             // of the algorithm, from 0
};

struct Message {
  int peer = 0;  // destination of a send, source of a receive
  Tensor data;   // contiguous
  Label label;
};

enum class Pattern : std::uint8_t {
  kExchange,       // sends and receives as given, any peers, both directions at once
  kAllGather,      // sends {mine}; receives one tensor per rank
  kReduceScatter,  // sends one tensor per rank; receives {sum of what all ranks sent to me}
  kAllReduce,      // receives {sum over ranks}, in place
  kAllToAll,       // sends one tensor per rank, receives one tensor per rank
  kBroadcast,      // sends {data} on the root; receives {data} elsewhere
};

struct Request {
  Pattern pattern = Pattern::kExchange;
  std::vector<Message> sends;
  std::vector<Message> receives;
  int root = 0;  // kBroadcast
};

// A posted operation. Destroying it without waiting cancels this rank's part (only errors do that).
class Operation {
 public:
  virtual ~Operation() = default;
  virtual void wait() = 0;  // throws Error on mismatch, time-out or a failed peer
};

class [[nodiscard]] Pending {
 public:
  Pending() = default;
  explicit Pending(std::unique_ptr<Operation> operation) : operation_(std::move(operation)) {}
  // Idempotent; does nothing when there is no operation.
  void wait() {
    if (auto operation = std::move(operation_)) operation->wait();
  }

 private:
  std::unique_ptr<Operation> operation_;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  int rank() const { return rank_; }
  int size() const { return size_; }

  Pending exchange(std::vector<Message> sends, std::vector<Message> receives);
  // Every rank's tensor, which may differ in rows, arrives in all[rank]; all[rank()] receives mine.
  Pending all_gather(const Tensor& mine, std::vector<Tensor> all, Label label);
  // sum = parts[rank()] summed over the ranks in rank order; f32 or f64.
  Pending reduce_scatter(std::vector<Tensor> parts, const Tensor& sum, Label label);
  Pending all_reduce(const Tensor& tensor, Label label);  // in place, f32 or f64
  Pending all_to_all(std::vector<Tensor> sends, std::vector<Tensor> receives, Label label);
  Pending broadcast(const Tensor& tensor, int root, Label label);

  // Ranks of one colour form a new communicator, ordered by key, then rank. Traffic is counted with
  // its parent's.
  std::unique_ptr<Communicator> split(int colour, int key);
  // Some of the ranks, this one among them, as a communicator that is split off at the first call
  // with this name and kept. The name stands for a partition of all ranks: a rank uses it with one
  // of its parts only. Collective at the first call.
  Communicator& group(const std::string& name, const Ranks& members);
  // A second channel over the same ranks.
  Communicator& channel(const std::string& name) { return group(name, {0, 1, size_}); }

  const Traffic& traffic() const { return *traffic_; }

 protected:
  Communicator(int rank, int size, std::shared_ptr<Traffic> traffic)
      : rank_(rank), size_(size), traffic_(std::move(traffic)) {}

  virtual std::unique_ptr<Operation> start(Request request) = 0;
  virtual std::unique_ptr<Communicator> start_split(int colour, int key) = 0;
  virtual std::unique_ptr<Communicator> start_group(const Ranks& members) {
    return start_split(members.first, rank_);
  }

  const std::shared_ptr<Traffic>& shared_traffic() const { return traffic_; }

  friend class CommunicatorDecorator;  // forwards start and start_split to the one it wraps

 private:
  struct Group {
    Ranks members;
    std::unique_ptr<Communicator> comm;
  };

  Pending post(Request request);

  int rank_;
  int size_;
  std::shared_ptr<Traffic> traffic_;
  std::map<std::string, Group> groups_;
};

constexpr std::chrono::seconds kDefaultTimeLimit{60};

}  // namespace sp
