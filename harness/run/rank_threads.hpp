// Ranks as threads of this process.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <thread>
#include <vector>

namespace sp {

// f(rank) on a thread of its own each. not_started(first) where there are no more threads to be had:
// the started ones must not wait for those from `first` on.
template <class F, class G>
void run_on_threads(int ranks, F&& f, G&& not_started) {
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    try {
      threads.emplace_back(f, rank);
    } catch (...) {
      return not_started(rank);
    }
  }
}

}  // namespace sp
