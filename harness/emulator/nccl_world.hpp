// NcclWorld: the ranks of one communicator, and where their calls meet.
//
// Matching   Sends and receives between two ranks meet in the order of their posts, collectives in
//            that of the communicator; what differs between the two sides is found when the second
//            one posts.
// Execution  The calls of a group are one operation of the stream. Operations of a communicator
//            run in the order of their posts, whatever their streams. A call's data moves when all
//            that meet in it have reached it: every rank reads its own memory, then writes it.
// Waiting    A rank that waits for one that waits for it, or for one that has left, is a deadlock,
//            found as soon as it exists.
// Locks      The device's, whose operation advances, before the world's.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/emulator/nccl_call.hpp"

namespace sp::emulator {

class NcclWorld : public std::enable_shared_from_this<NcclWorld> {
 public:
  explicit NcclWorld(int size);

  int size() const { return static_cast<int>(parties_.size()); }
  int device(int rank) const { return party(rank).device; }

  // Returns when all ranks have come. Throws Fault.
  void join(int rank, int device, int size);
  // A rank's part of a split; null without a colour. Returns when all ranks have chosen.
  struct Part {
    std::shared_ptr<NcclWorld> world;
    int rank = 0;
  };
  Part split(int rank, int colour, int key);

  // Matches the calls of a group and enqueues their operation; returns the meetings that they take
  // part in, by numbers that all communicators share. Throws Fault.
  std::vector<std::uint64_t> post(int rank, const std::vector<NcclCall>& calls,
                                  cudaStream_t stream);

  // Its operations end without moving anything.
  void abort(int rank);
  // It posts nothing any more; what it has posted goes on.
  void leave(int rank);
  ncclResult_t state(int rank);

 private:
  class Operation;
  struct Place {
    int rank = 0;
    bool posted = false, reached = false;
    NcclCall call;
    std::vector<std::byte> data;  // what the rank gave
  };
  // Of a send and its receive, in this order, or of one collective of all ranks.
  struct Meeting {
    std::vector<Place> places;
    std::size_t reached = 0, given = 0;
    std::uint64_t number = 0, seed = 0;
    std::vector<std::byte> reduced;
  };
  struct Party {
    int device = -1;
    bool aborted = false, left = false;
    std::deque<Operation*> order;   // posted and not done
    std::uint64_t collectives = 0;  // posted so far
    std::size_t splits = 0;
    std::map<const void*, std::vector<std::byte>> stale;  // what buffers held when last sent
  };
  struct Split {
    std::size_t chosen = 0;
    std::vector<std::pair<int, int>> choices;  // colour and key
    std::map<int, std::shared_ptr<NcclWorld>> worlds;
  };
  using Pair = std::pair<int, int>;  // sender, receiver

  Party& party(int rank) { return parties_[static_cast<std::size_t>(rank)]; }
  const Party& party(int rank) const { return parties_[static_cast<std::size_t>(rank)]; }
  void wait(std::unique_lock<std::mutex>& lock, int rank, const char* for_what,
            const std::function<bool()>& done);
  [[noreturn]] void give_up(const Fault& fault);
  std::shared_ptr<Meeting> meet(int rank, const NcclCall& call, std::size_t& place);
  Operation* waiting(int rank);  // what it has reached and cannot finish
  std::optional<std::string> deadlock(int rank);
  bool follow(int rank, int target, std::vector<bool>& seen, std::string& path);

  std::mutex mutex_;
  std::condition_variable changed_;  // joins and splits
  std::vector<Party> parties_;
  std::size_t joined_ = 0;
  std::map<Pair, std::deque<std::shared_ptr<Meeting>>> open_pairs_;
  std::map<std::uint64_t, std::shared_ptr<Meeting>> open_collectives_;
  std::map<std::size_t, Split> splits_;
  std::uint64_t meetings_ = 0;
  std::optional<Fault> broken_;  // by whom it was first
};

// A new machine has no communicators.
void forget_communicators();

}  // namespace sp::emulator
