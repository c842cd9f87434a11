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

// Some of the ranks, evenly spaced: the first, the first + stride, ...
struct Ranks {
  int first = 0, stride = 1, count = 1;
  int operator[](int i) const { return first + i * stride; }
  bool operator==(const Ranks&) const = default;
};

class Layout {
 public:
  Layout(Sharding sharding, std::int64_t tokens, int ranks);

  Sharding sharding() const { return sharding_; }
  std::int64_t size() const { return size_; }  // of the whole sequence
  int ranks() const { return ranks_.count; }
  Tokens tokens(int rank) const;
  std::int64_t count(int rank) const { return tokens(rank).count(); }
  std::vector<std::int64_t> counts() const;  // of all ranks
  // The same tokens on ranks() / group ranks, each with the shards of `group` consecutive ranks,
  // one after the other. Of zigzag chunks these are the tokens of the coarser zigzag.
  Layout grouped(int group) const;
  // Some of the ranks alone, in this order, each with what it has.
  Layout of(const Ranks& chosen) const;

 private:
  Tokens shard(int index) const;

  Sharding sharding_;
  std::int64_t size_;
  int shards_;     // that the sequence is cut into
  int group_ = 1;  // of them per rank
  Ranks ranks_;
};

}  // namespace sp
