// RankFailures: which of the ranks that are threads failed first, and what the others waited for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <string>

#include "reference/problem/error.hpp"

namespace sp {

class RankFailures {
 public:
  // In a catch block of the rank's thread. Once per rank; the first rank sets the flag.
  void record(int rank);

  bool any() const { return flag_->load(); }
  // Tells the other ranks.
  std::shared_ptr<const std::atomic<bool>> flag() const { return flag_; }

  // After the threads have ended: "rank r: reason", what the others had in flight if r timed out,
  // and the addition.
  [[noreturn]] void rethrow(const std::string& addition) const;

 private:
  std::shared_ptr<std::atomic<bool>> flag_ = std::make_shared<std::atomic<bool>>(false);
  std::mutex mutex_;
  ErrorKind kind_ = ErrorKind::kInternal;
  std::string first_, others_;
  int rank_ = -1;
};

}  // namespace sp
