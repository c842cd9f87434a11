// ThreadBoard: what the ranks of a ThreadWorld share: mailboxes, who waits for what, and the first
// failure.
//
// Invariant  A mailbox holds sends or receives of one (communicator, channel, source), never both:
//            whoever posts second brings the sent tensor to the received one.
// Locks      mailbox (one per destination) before desk (one per rank); never two of a kind.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "optimized/comm/envelope.hpp"
#include "optimized/comm/host_communicator.hpp"

namespace sp {

class ThreadBoard;

// Ranks are those of the world, whichever communicator the messages belong to.
class ThreadTransfer : public Transfer {
 public:
  struct Part {
    bool is_send = false;
    int peer = 0;
    Tensor data;  // keeps the storage alive until the copy is made
    Envelope envelope;
    std::atomic<bool> done{false};
  };

  ThreadTransfer(std::shared_ptr<ThreadBoard> board, std::int64_t communicator,
                 const Channel& channel, int rank, std::size_t parts);
  ~ThreadTransfer() override;

  std::vector<Part>& parts() { return parts_; }
  bool done() override { return undone_.load(std::memory_order_acquire) == 0; }

 protected:
  // Both sides of a message have been posted: brings it. Called on the receiver's transfer by whoever
  // came second, with no other message to the same rank at a time.
  virtual void bring(Part& received, ThreadTransfer& sender, Part& sent);
  // Nobody looks at what is unmatched any more. To be called by the destructor of a class that
  // overrides bring().
  void withdraw();

 private:
  friend class ThreadBoard;

  std::shared_ptr<ThreadBoard> board_;
  std::int64_t communicator_;
  Channel channel_;
  int rank_;
  std::vector<Part> parts_;
  std::atomic<std::size_t> undone_;
};

class ThreadBoard {
 public:
  ThreadBoard(int ranks, std::chrono::milliseconds time_limit);

  int size() const { return static_cast<int>(desks_.size()); }
  std::chrono::milliseconds time_limit() const { return time_limit_; }

  void post(ThreadTransfer& transfer);
  void withdraw(ThreadTransfer& transfer);

  // Counts what has happened to the transfers of a rank; changes also wake it up.
  std::uint64_t events(int rank);
  // Returns when events(rank) differs from `seen`; throws when the world has failed, the deadline
  // has passed, or a peer that the transfer needs has finished.
  void sleep(int rank, ThreadTransfer& transfer, std::uint64_t seen,
             std::chrono::steady_clock::time_point deadline);

  // The same for all ranks that ask about the same split and colour.
  std::int64_t communicator_id(std::int64_t parent, std::int64_t split, int colour);

  void finish(int rank);                           // its body has returned
  void fail(int rank, std::exception_ptr reason);  // only the first failure counts
  void throw_if_failed(int rank) const;            // in words for this rank
  void rethrow_failure() const;                    // in words for the caller of all ranks

 private:
  using Part = ThreadTransfer::Part;
  using Key = std::tuple<std::int64_t, std::int64_t, int>;  // communicator, channel, source
  struct Posted {
    ThreadTransfer* transfer = nullptr;
    Part* part = nullptr;
  };
  struct Mailbox {
    std::mutex mutex;
    std::map<Key, std::deque<Posted>> posted;
  };
  struct Desk {
    std::mutex mutex;
    std::condition_variable changed;
    std::uint64_t events = 0;
    ThreadTransfer* waits_for = nullptr;
    std::atomic<bool> finished{false};
  };
  // In words, because an exception object must not be shared by the threads that report it.
  struct Failure {
    int rank = 0;
    ErrorKind kind = ErrorKind::kInternal;
    std::string text;
    std::exception_ptr foreign;  // of a type that we cannot put into words
  };

  static Failure failure_from(int rank, const std::exception_ptr& reason);
  void fail(Failure failure);
  static Key key_of(const ThreadTransfer& transfer, const Part& part);
  static int destination_of(const ThreadTransfer& transfer, const Part& part);
  std::optional<std::string> match(ThreadTransfer& transfer, Part& part);
  void complete(const Posted& posted);
  void signal(int rank);
  void check_finished_peers(int rank, ThreadTransfer& transfer);
  void report_time_out(int rank);
  std::string describe_all_ranks();

  std::chrono::milliseconds time_limit_;
  std::vector<Mailbox> mailboxes_;  // by destination
  std::vector<Desk> desks_;         // by rank

  std::mutex report_mutex_;  // held while a time-out is written down, so that there is one report
  std::atomic<bool> failed_{false};
  mutable std::mutex failure_mutex_;
  std::optional<Failure> failure_;

  std::mutex ids_mutex_;
  std::map<std::tuple<std::int64_t, std::int64_t, int>, std::int64_t> ids_;
};

}  // namespace sp
