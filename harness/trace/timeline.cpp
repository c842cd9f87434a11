// SPDX-License-Identifier: Apache-2.0
#include "harness/trace/timeline.hpp"

#include <algorithm>
#include <tuple>

namespace sp {

void Timeline::add(Span span) {
  const std::lock_guard lock(mutex_);
  spans_.push_back(std::move(span));
}

std::vector<Span> Timeline::take() {
  const std::lock_guard lock(mutex_);
  std::vector<Span> spans = std::move(spans_);
  spans_.clear();
  std::stable_sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
    return std::tie(a.rank, a.lane, a.start_s) < std::tie(b.rank, b.lane, b.start_s);
  });
  return spans;
}

}  // namespace sp
