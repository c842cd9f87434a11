// The global positions of a block of tokens, as runs of constant stride.
//
// Positions travel with every block: whoever holds a block of rank r knows its Tokens, because the
// layout is a pure index map, so no position is ever sent. A shard is one run (contiguous, striped)
// or two (zigzag).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace sp {

struct Run {
  std::int64_t first = 0;
  std::int64_t stride = 1;
  std::int64_t count = 0;  // never 0 inside Tokens
  std::int64_t position(std::int64_t i) const { return first + i * stride; }
  std::int64_t last() const { return position(count - 1); }
  bool operator==(const Run&) const = default;
};

class Tokens {
 public:
  Tokens() = default;
  explicit Tokens(std::vector<Run> runs);  // drops empty runs

  const std::vector<Run>& runs() const& { return runs_; }
  const std::vector<Run>& runs() const&& = delete;  // would dangle in a range-for
  std::int64_t count() const { return count_; }
  std::int64_t position(std::int64_t local) const;           // O(runs)
  Tokens slice(std::int64_t begin, std::int64_t end) const;  // local indices
  Tokens& append(const Tokens& more);
  bool operator==(const Tokens&) const = default;

 private:
  std::vector<Run> runs_;
  std::int64_t count_ = 0;
};

}  // namespace sp
