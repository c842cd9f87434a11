// The threads of a world and their ends.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/thread/thread_world.hpp"

#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "optimized/comm/thread/thread_board.hpp"
#include "optimized/comm/thread/thread_communicator.hpp"

namespace sp {

ThreadWorld::ThreadWorld(int ranks, std::chrono::milliseconds time_limit) {
  SP_CHECK(ranks >= 1, "a world needs at least one rank");
  board_ = std::make_shared<ThreadBoard>(ranks, time_limit);
}

int ThreadWorld::size() const { return board_->size(); }

std::unique_ptr<Communicator> ThreadWorld::communicator(int rank,
                                                        std::shared_ptr<Traffic> traffic) {
  SP_CHECK(0 <= rank && rank < size(), "a rank outside the world");
  std::vector<int> members(static_cast<std::size_t>(size()));
  std::iota(members.begin(), members.end(), 0);
  return std::make_unique<ThreadCommunicator>(board_, 0, std::move(members), rank,
                                              std::move(traffic), std::make_shared<Stages>());
}

void ThreadWorld::finish(int rank) { board_->finish(rank); }
void ThreadWorld::fail(int rank, std::exception_ptr reason) { board_->fail(rank, reason); }
void ThreadWorld::rethrow_failure() const { board_->rethrow_failure(); }

void run_ranks(int ranks, std::chrono::milliseconds time_limit,
               const std::function<void(Communicator&)>& body) {
  ThreadWorld world(ranks, time_limit);
  const auto run = [&](int rank) {
    try {
      const auto comm = world.communicator(rank, std::make_shared<Traffic>());
      body(*comm);
      world.finish(rank);
    } catch (...) {
      world.fail(rank, std::current_exception());
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      try {
        threads.emplace_back(run, rank);
      } catch (...) {  // no more threads to be had: the started ones must not wait for this one
        world.fail(rank, std::current_exception());
        break;
      }
    }
  }
  world.rethrow_failure();
}

}  // namespace sp
