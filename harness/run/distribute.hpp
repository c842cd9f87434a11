// Between whole tensors on the host and the shards of the ranks.
//
// Host tensors are [B, N, H, D]; shards are token-major, [n, B, H, D]. Uploads and downloads go
// through Memory, so the same code feeds every back-end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/algorithm.hpp"

namespace sp {

// A [B, N, heads, size] host tensor's rows of `tokens`, as a shard.
Tensor scatter(const HostTensor& whole, const Tokens& tokens, Memory& memory, const char* name);
// The inverse: writes the shard's rows into the whole; both of one type.
void place(HostTensor& whole, const Tensor& shard, const Tokens& tokens, const Memory& memory);
// A shard [n, B, heads, 1] of log-sum-exp into the whole [B, H, N], from head `first_head` on.
void place_lse(HostTensor& whole, const Tensor& shard, const Tokens& tokens,
               std::int64_t first_head, const Memory& memory);

Shards scatter(const Problem& problem, const Inputs& inputs, const Layout& layout, int rank,
               Memory& memory);

}  // namespace sp
