// RankFailures: why ranks that are threads failed: the first cause, not what followed from it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "reference/problem/error.hpp"

namespace sp {

class RankFailures {
 public:
  // In a catch block of the rank's thread. The first call sets the flag; a rank's first call counts.
  void record(int rank);

  bool any() const { return flag_->load(); }
  // Tells the other ranks.
  std::shared_ptr<const std::atomic<bool>> flag() const { return flag_; }

  // After the threads have ended: "rank r: reason", what the others had in flight if r timed out,
  // and the addition. A rank that is told of a failure may come before the rank that failed, so a
  // PeerFailure is the reason only when there is no other; then every rank's is given.
  [[noreturn]] void rethrow(const std::string& addition) const;

 private:
  struct Failure {
    int rank;
    ErrorKind kind;
    bool of_a_peer;
    std::string first_line, in_flight;  // the latter with the line break before it
  };

  std::shared_ptr<std::atomic<bool>> flag_ = std::make_shared<std::atomic<bool>>(false);
  std::mutex mutex_;
  std::vector<Failure> failures_;  // in the order of their calls
};

}  // namespace sp
