// The words of a time-out.
//
// SPDX-License-Identifier: Apache-2.0
#include "optimized/comm/thread/thread_report.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace sp {

void RankReport::add_waiting(int rank, const std::vector<ThreadTransfer::Part>& parts) {
  constexpr int kShown = 4;  // a collective of 64 ranks would fill the screen
  int undone = 0;
  std::string words;
  for (const bool sends : {false, true}) {  // what a rank lacks says more than what it offers
    for (const auto& part : parts) {
      if (part.is_send != sends || part.done.load(std::memory_order_acquire)) continue;
      if (undone++ >= kShown) continue;
      words += (words.empty() ? "" : ", ") + describe_wait(part.is_send, part.peer, part.envelope);
    }
  }
  if (undone > kShown) words += fmt::format(", and {} more", undone - kShown);
  // Its transfer may have become done after the limit passed and before it could leave.
  lines_ += fmt::format("\n  rank {} waits {}", rank, undone == 0 ? "for nothing any more" : words);
}

void RankReport::add_silent(int rank) {
  silent_.push_back(rank);
  lines_ += fmt::format(
      "\n  rank {} waits for nothing: it computes, or stalls, and has not posted what others wait "
      "for",
      rank);
}

void RankReport::add_finished(int rank) { lines_ += fmt::format("\n  rank {} has finished", rank); }

std::string RankReport::text() const {
  const std::string who = silent_.empty()
                              ? "every rank waits for another"
                              : fmt::format("no sign of rank {}", fmt::join(silent_, ", "));
  return fmt::format("the time limit of {} s has passed: {}{}",
                     static_cast<double>(time_limit_.count()) / 1000.0, who, lines_);
}

}  // namespace sp
