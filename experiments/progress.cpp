// SPDX-License-Identifier: Apache-2.0
#include "experiments/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace sp {

Progress::Progress(bool wanted) : visible_(wanted && isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { hide(); }

void Progress::hide() {
  if (shown_) fmt::print(stderr, "\r\x1b[K");
  shown_ = false;
}

void Progress::show(std::int64_t done, std::int64_t total) {
  constexpr auto kInterval = std::chrono::milliseconds(100);
  constexpr int kWidth = 30;
  const Clock::time_point now = Clock::now();
  if (!visible_ || total <= 0 || now - last_ < kInterval) return;
  last_ = now;
  shown_ = true;
  const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const auto filled = static_cast<std::size_t>(part * kWidth);
  fmt::print(stderr, "\r\x1b[K[{}{}] {:3.0f} %  {:.0f} s left", std::string(filled, '='),
             std::string(kWidth - filled, ' '), 100 * part,
             part > 0 ? elapsed * (1 - part) / part : 0);
  std::fflush(stderr);
}

}  // namespace sp
