// ThreadWorld: P ranks as threads of one process; P is just a number.
//
// Messages are copied once, from the sender's into the receiver's tensor, by whoever comes second.
// When one rank fails, all others end promptly with an error that names it and its reason; when a
// wait passes the time limit, the error says of every rank what it waits for.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>

#include "optimized/comm/communicator.hpp"

namespace sp {

class ThreadBoard;

class ThreadWorld {
 public:
  explicit ThreadWorld(int ranks, std::chrono::milliseconds time_limit = kDefaultTimeLimit);

  int size() const;

  // Once per rank; to be used by one thread at a time.
  std::unique_ptr<Communicator> communicator(int rank, std::shared_ptr<Traffic> traffic);

  // How the thread of a rank ended. Whoever still waits for it is told.
  void finish(int rank);
  void fail(int rank, std::exception_ptr reason);

  // Throws the first failure, as "rank r: reason".
  void rethrow_failure() const;

 private:
  std::shared_ptr<ThreadBoard> board_;
};

// Runs the body on every rank, each on a thread of its own with its own traffic, and throws the
// first failure.
void run_ranks(int ranks, std::chrono::milliseconds time_limit,
               const std::function<void(Communicator&)>& body);

}  // namespace sp
