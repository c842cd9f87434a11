// RankReport: the one message of a time-out, which says of every rank what it waits for.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "optimized/comm/thread/thread_board.hpp"

namespace sp {

class RankReport {
 public:
  explicit RankReport(std::chrono::milliseconds time_limit) : time_limit_(time_limit) {}

  void add_waiting(int rank, const std::vector<ThreadTransfer::Part>& parts);
  void add_silent(int rank);
  void add_finished(int rank);
  std::string text() const;

 private:
  std::chrono::milliseconds time_limit_;
  std::vector<int> silent_;
  std::string lines_;
};

}  // namespace sp
