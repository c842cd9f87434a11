// SPDX-License-Identifier: Apache-2.0
#include "optimized/sharding/layout.hpp"

#include "reference/problem/error.hpp"

namespace sp {
namespace {

Run part(std::int64_t count, std::int64_t parts, std::int64_t index) {
  const std::int64_t begin = part_begin(count, parts, index);
  return {begin, 1, part_begin(count, parts, index + 1) - begin};
}

}  // namespace

std::string_view name_of(Sharding sharding) {
  switch (sharding) {
    case Sharding::kContiguous:
      return "contiguous";
    case Sharding::kStriped:
      return "striped";
    case Sharding::kZigzag:
      return "zigzag";
  }
  return "unknown";
}

Layout::Layout(Sharding sharding, std::int64_t tokens, int ranks)
    : sharding_(sharding), size_(tokens), ranks_(ranks) {
  SP_CHECK(tokens >= 0 && ranks >= 1, "a layout needs tokens >= 0 and ranks >= 1");
}

Tokens Layout::tokens(int rank) const {
  switch (sharding_) {
    case Sharding::kContiguous:
      return Tokens({part(size_, ranks_, rank)});
    case Sharding::kStriped:
      return Tokens({{rank, ranks_, (size_ - rank + ranks_ - 1) / ranks_}});
    case Sharding::kZigzag:
      break;
  }
  const std::int64_t chunks = 2 * static_cast<std::int64_t>(ranks_);
  return Tokens({part(size_, chunks, rank), part(size_, chunks, chunks - 1 - rank)});
}

}  // namespace sp
