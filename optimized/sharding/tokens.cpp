// SPDX-License-Identifier: Apache-2.0
#include "optimized/sharding/tokens.hpp"

#include <algorithm>

#include "reference/problem/error.hpp"

namespace sp {

Tokens::Tokens(std::vector<Run> runs) : runs_(std::move(runs)) {
  std::erase_if(runs_, [](const Run& run) { return run.count == 0; });
  for (const Run& run : runs_) count_ += run.count;
}

std::int64_t Tokens::position(std::int64_t local) const {
  for (const Run& run : runs_) {
    if (local < run.count) return run.position(local);
    local -= run.count;
  }
  SP_CHECK(false, "a token index leaves its block");
}

Tokens Tokens::slice(std::int64_t begin, std::int64_t end) const {
  SP_CHECK(0 <= begin && begin <= end && end <= count_, "a slice leaves its block of tokens");
  std::vector<Run> part;
  std::int64_t offset = 0;
  for (const Run& run : runs_) {
    const std::int64_t from = std::max(begin - offset, std::int64_t{0});
    const std::int64_t to = std::min(end - offset, run.count);
    if (from < to) part.push_back({run.position(from), run.stride, to - from});
    offset += run.count;
  }
  return Tokens(std::move(part));
}

Tokens& Tokens::append(const Tokens& more) {
  runs_.insert(runs_.end(), more.runs_.begin(), more.runs_.end());
  count_ += more.count_;
  return *this;
}

}  // namespace sp
