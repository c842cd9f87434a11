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

Layout Layout::grouped(int group) const {
  SP_CHECK(group >= 1 && ranks_ % group == 0, "a group of ranks divides them");
  Layout coarser = *this;
  coarser.ranks_ /= group;
  coarser.group_ *= group;
  return coarser;
}

Tokens Layout::tokens(int rank) const {
  Tokens all;
  for (int index = rank * group_; index < (rank + 1) * group_; ++index) all.append(shard(index));
  return all;
}

Tokens Layout::shard(int index) const {
  const int shards = ranks_ * group_;
  switch (sharding_) {
    case Sharding::kContiguous:
      return Tokens({part(size_, shards, index)});
    case Sharding::kStriped:
      return Tokens({{index, shards, (size_ - index + shards - 1) / shards}});
    case Sharding::kZigzag:
      break;
  }
  const std::int64_t chunks = 2 * static_cast<std::int64_t>(shards);
  return Tokens({part(size_, chunks, index), part(size_, chunks, chunks - 1 - index)});
}

}  // namespace sp
