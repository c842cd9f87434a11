// MpiSession: MPI from its start to its end, once per process; one process is one rank.
//
// A run must not hang because one rank has failed: whoever catches an Error calls mpi_abort, and a
// session that dies while an exception passes does so by itself.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "optimized/comm/communicator.hpp"

namespace sp {

class MpiEngine;

struct MpiOptions {
  std::chrono::milliseconds time_limit = kDefaultTimeLimit;  // of every wait
  // MPI counts in int: longer messages travel in pieces of at most this size.
  std::int64_t piece_bytes = std::int64_t{1} << 30;
};

class MpiSession {
 public:
  MpiSession(int* argc, char*** argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // All ranks of the job. Collective; the session must outlive it.
  std::unique_ptr<Communicator> communicator(std::shared_ptr<Traffic> traffic,
                                             const MpiOptions& options = {});

 private:
  int rank_ = 0;
  int size_ = 1;
  int exceptions_;
  std::shared_ptr<MpiEngine> engine_;
};

// Ends all ranks of the job at once.
[[noreturn]] void mpi_abort(int exit_code);

}  // namespace sp
