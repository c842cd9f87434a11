// MpiEngine: what the communicators of one process share: progress, and how to fail together.
//
// Whoever waits moves all of the rank's transfers on, for a peer may wait for any of them. When a
// wait passes its limit, the rank says so to all others; those that wait answer with what they wait
// for, and after a grace everybody who answered ends with an error that names those who did not.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "optimized/comm/mpi/mpi_transfer.hpp"

namespace sp {

class MpiEngine {
 public:
  MpiEngine();
  ~MpiEngine();
  MpiEngine(const MpiEngine&) = delete;
  MpiEngine& operator=(const MpiEngine&) = delete;

  void add(MpiTransfer* transfer) { active_.push_back(transfer); }
  void remove(const MpiTransfer* transfer) { std::erase(active_, transfer); }
  // Keeps the headers of a withdrawn transfer where MPI may still look for them.
  void bury(std::deque<MpiHeader> headers) { buried_.push_back(std::move(headers)); }

  // Calls `advance` whenever something may have arrived.
  void wait(MpiTransfer& transfer, std::chrono::milliseconds time_limit,
            const std::function<void()>& advance);

 private:
  bool progress();  // true if something arrived or left
  void listen();    // throws when another rank has failed
  void tell_all(int subject, const std::string& text);
  [[noreturn]] void fail_everywhere(const Error& error);
  [[noreturn]] void time_out(const MpiTransfer& transfer, std::chrono::milliseconds time_limit);
  std::string describe_silence(std::chrono::milliseconds time_limit) const;

  MPI_Comm control_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::vector<MpiTransfer*> active_;
  std::map<int, std::string> waiting_;  // ranks that have told what they wait for
  std::deque<std::string> told_;        // buffers of notices, which nobody need receive
  std::vector<std::deque<MpiHeader>> buried_;
};

}  // namespace sp
