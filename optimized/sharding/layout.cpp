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
    : sharding_(sharding), size_(tokens), shards_(ranks), ranks_{0, 1, ranks} {
  SP_CHECK(tokens >= 0 && ranks >= 1, "a layout needs tokens >= 0 and ranks >= 1");
}

Layout Layout::grouped(int group) const {
  SP_CHECK(group >= 1 && ranks_.count % group == 0 && ranks_.first % group == 0,
           "a group of ranks divides them");
  SP_CHECK(ranks_.stride == 1, "ranks of a group are consecutive");
  Layout coarser = *this;
  coarser.ranks_ = {ranks_.first / group, 1, ranks_.count / group};
  coarser.group_ *= group;
  return coarser;
}

Layout Layout::of(const Ranks& chosen) const {
  SP_CHECK(chosen.count >= 1 && chosen[0] >= 0 && chosen[chosen.count - 1] < ranks_.count,
           "chosen ranks are among those of the layout");
  Layout some = *this;
  some.ranks_ = {ranks_[chosen.first], ranks_.stride * chosen.stride, chosen.count};
  return some;
}

Tokens Layout::tokens(int rank) const {
  Tokens all;
  const int first = ranks_[rank] * group_;
  for (int index = first; index < first + group_; ++index) all.append(shard(index));
  return all;
}

std::vector<std::int64_t> Layout::counts() const {
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < ranks(); ++rank) counts.push_back(count(rank));
  return counts;
}

Tokens Layout::shard(int index) const {
  switch (sharding_) {
    case Sharding::kContiguous:
      return Tokens({part(size_, shards_, index)});
    case Sharding::kStriped:
      return Tokens({{index, shards_, (size_ - index + shards_ - 1) / shards_}});
    case Sharding::kZigzag:
      break;
  }
  const std::int64_t chunks = 2 * static_cast<std::int64_t>(shards_);
  return Tokens({part(size_, chunks, index), part(size_, chunks, chunks - 1 - index)});
}

}  // namespace sp
