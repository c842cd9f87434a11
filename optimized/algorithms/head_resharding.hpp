// Trades tokens for heads inside a group of consecutive ranks, by all-to-all: the two moves that
// Ulysses-like algorithms are made of.
//
// A token shard [n, B, heads, D] holds one rank's tokens and every head. A head shard
// [m, B, heads/U, D] holds the tokens of all U ranks of the group, rank after rank, and on the i-th
// rank the heads [i heads/U, (i+1) heads/U). U divides heads. Collective over the group.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <vector>

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

struct HeadGroup {
  Communicator& comm;
  Layout layout;  // of its ranks
};

struct Travelling {
  const char* name;  // a string literal
  Tensor tensor;
};

// All are posted before the first is waited for; results in the order of the arguments.
std::vector<Tensor> to_heads(Context& ctx, const HeadGroup& group,
                             std::initializer_list<Travelling> token_shards);
std::vector<Tensor> to_tokens(Context& ctx, const HeadGroup& group,
                              std::initializer_list<Travelling> head_shards);

}  // namespace sp
