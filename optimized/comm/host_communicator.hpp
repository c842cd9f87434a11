// HostCommunicator: every collective, written once on top of point-to-point messages between hosts.
//
// A back-end (threads, MPI, threads that drive GPUs) supplies three things: post a group of messages,
// wait for it, form a smaller communicator; and, where data is not on the host, how to copy and sum.
// Sums are taken in rank order 0..P-1 whatever arrives first, so results are bitwise the same on every
// back-end and in every run.
//
// Used by the thread of its rank only. Operations must be waited for before their communicator
// dies; destroying them afterwards is harmless.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "optimized/comm/communicator.hpp"
#include "optimized/comm/host_buffer.hpp"

namespace sp {

// Messages of one channel match in the order of their posts. All exchanges share channel 0; every
// collective has channels of its own, because its later stages are posted while newer operations
// are already under way.
struct Channel {
  Pattern pattern = Pattern::kExchange;
  std::int64_t number = 0;
  bool of_hosts = false;  // its tensors are on the host, wherever the ranks compute
};

// A posted group of messages. Destroying it before it is done withdraws what is unmatched.
class Transfer {
 public:
  virtual ~Transfer() = default;
  virtual bool done() = 0;
};

// The operations of one rank that still have messages to post. Whoever waits, for whatever on
// whichever communicator, moves them on: otherwise a rank that waits for a newer operation first
// would hold up its peers.
class Stages {
 public:
  class Operation {
   public:
    virtual ~Operation() = default;
    virtual void advance() = 0;  // posts the next stage if the previous one has arrived
  };

  void add(Operation* operation) { active_.push_back(operation); }
  void remove(const Operation* operation) { std::erase(active_, operation); }
  void advance();

 private:
  std::vector<Operation*> active_;
};

class HostCommunicator : public Communicator {
 protected:
  struct Group {
    std::vector<int> members;  // ranks of this communicator, in the order of the new one
    int rank = 0;              // mine in the new one
    int colour = 0;
    std::int64_t split = 0;  // distinguishes successive splits of this communicator
  };

  HostCommunicator(int rank, int size, std::shared_ptr<Traffic> traffic,
                   std::shared_ptr<Stages> stages)
      : Communicator(rank, size, std::move(traffic)), stages_(std::move(stages)) {}

  // Never blocks. Peers are ranks of this communicator and may include its own.
  virtual std::shared_ptr<Transfer> post_messages(const Channel& channel,
                                                  std::vector<Message> sends,
                                                  std::vector<Message> receives) = 0;
  // Returns when the transfer is done; calls advance_stages() whenever something arrived.
  virtual void wait_for(Transfer& transfer) = 0;
  virtual std::unique_ptr<Communicator> form_group(const Group& group) = 0;

  // What a transfer that is done has brought may be used by what this rank does from now on.
  virtual void settle(Transfer&) {}
  virtual Tensor staging(DType dtype, std::int64_t elements) {
    return host_buffer(dtype, {elements, 1, 1, 1}, "received summand");
  }
  virtual void copy(const Tensor& target, const Tensor& source) { copy_bytes(target, source); }
  virtual void sum(const Tensor& target, const std::vector<Tensor>& sources) {
    sum_in_order(target, sources);
  }

  std::unique_ptr<sp::Operation> start(Request request) final;
  std::unique_ptr<Communicator> start_split(int colour, int key) final;

  void advance_stages() { stages_->advance(); }
  const std::shared_ptr<Stages>& stages() const { return stages_; }

 private:
  class Simple;
  class ReduceScatter;
  class AllReduce;

  // From the next rank around to the previous one, so that not all ranks send to rank 0 first.
  std::vector<int> peers() const;
  Channel next_channel(Pattern pattern);

  std::unique_ptr<sp::Operation> start_all_gather(Request request);
  std::unique_ptr<sp::Operation> start_all_to_all(Request request);
  std::unique_ptr<sp::Operation> start_broadcast(Request request);

  std::shared_ptr<Stages> stages_;
  std::int64_t channels_ = 0;  // handed out so far
  std::int64_t splits_ = 0;
};

}  // namespace sp
