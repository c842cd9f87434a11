// Layouts: which tokens of a sequence of N live on which of P ranks. Pure index maps; any N and P,
// empty shards are legal.
//
// contiguous  rank r holds tokens [rN/P, (r+1)N/P); causal work grows with r
// striped     rank r holds tokens r, r+P, r+2P, ... (Striped Attention, arXiv:2311.09431)
// zigzag      2P chunks, rank r holds chunks r and 2P-1-r, in this order (ring-flash-attention;
//             Llama 3)
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "optimized/sharding/tokens.hpp"

namespace sp {

enum class Sharding : std::uint8_t { kContiguous, kStriped, kZigzag };

std::string_view name_of(Sharding sharding);

// Bounds of part `index` when `count` things are cut into `parts` nearly equal parts.
constexpr std::int64_t part_begin(std::int64_t count, std::int64_t parts, std::int64_t index) {
  // floor(count index / parts), without overflow
  return count / parts * index + count % parts * index / parts;
}

class Layout {
 public:
  Layout(Sharding sharding, std::int64_t tokens, int ranks);

  Sharding sharding() const { return sharding_; }
  std::int64_t size() const { return size_; }
  int ranks() const { return ranks_; }
  Tokens tokens(int rank) const;
  std::int64_t count(int rank) const { return tokens(rank).count(); }
  // The same tokens on ranks() / group ranks, each with the shards of `group` consecutive ranks,
  // one after the other. Of zigzag chunks these are the tokens of the coarser zigzag.
  Layout grouped(int group) const;

 private:
  Tokens shard(int index) const;

  Sharding sharding_;
  std::int64_t size_;
  int ranks_;
  int group_ = 1;  // shards per rank
};

}  // namespace sp
