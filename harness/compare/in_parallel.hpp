// Independent tasks on all cores of the machine.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace sp {

// f(task) for 0 <= task < count, in any order; rethrows the first exception. Not worth it: one after the other, here.
template <class F>
void in_parallel(std::int64_t count, bool worth_it, F&& f) {
  const std::int64_t cores = std::int64_t{std::thread::hardware_concurrency()};
  const std::int64_t workers = worth_it ? std::min(count, std::max<std::int64_t>(cores, 1)) : 1;
  if (workers <= 1) {
    for (std::int64_t task = 0; task < count; ++task) f(task);
    return;
  }
  std::atomic<std::int64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (std::int64_t task; (task = next.fetch_add(1)) < count;) f(task);
    } catch (...) {
      next = count;
      const std::lock_guard lock(mutex);
      if (failure == nullptr) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (std::int64_t i = 1; i < workers; ++i) threads.emplace_back(work);
    work();
  }
  if (failure != nullptr) std::rethrow_exception(failure);
}

}  // namespace sp
