// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/head_resharding.hpp"

#include <numeric>

#include "optimized/algorithms/blocks.hpp"

namespace sp {
namespace {

// An all-to-all on its way. Token shards pass through `packed`, [U n, B, heads/U, D], where they
// are ordered by the rank that has the heads.
struct Resharding {
  Tensor tokens, heads, packed;
  Pending pending;
};

std::vector<Tensor> by_peer(const Tensor& packed, int ranks) {
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(ranks), packed.extent(0) / ranks);
  return parts_of(packed, rows);
}

Tensor heads_of(const Tensor& tokens, int peer, int ranks) {
  const std::int64_t share = tokens.extent(2) / ranks;
  return tokens.slice(2, peer * share, (peer + 1) * share);
}

Tensor allocate_packed(Context& ctx, const Tensor& tokens, int ranks) {
  return ctx.memory.allocate(
      tokens.dtype(),
      {ranks * tokens.extent(0), tokens.extent(1), tokens.extent(2) / ranks, tokens.extent(3)},
      "packed");
}

}  // namespace

std::vector<Tensor> to_heads(Context& ctx, const HeadGroup& group,
                             std::initializer_list<Travelling> token_shards) {
  const int U = group.comm.size();
  const std::vector<std::int64_t> rows = group.layout.counts();
  const std::int64_t all = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  std::vector<Resharding> moving;
  for (const auto& [name, tokens] : token_shards) {
    const Tensor packed = allocate_packed(ctx, tokens, U);
    const Tensor heads = ctx.memory.allocate(
        tokens.dtype(), {all, tokens.extent(1), tokens.extent(2) / U, tokens.extent(3)}, name);
    const std::vector<Tensor> parts = by_peer(packed, U);
    for (int peer = 0; peer < U; ++peer)
      ctx.kernels.copy(parts[static_cast<std::size_t>(peer)], heads_of(tokens, peer, U));
    moving.push_back(
        {tokens, heads, packed, group.comm.all_to_all(parts, parts_of(heads, rows), {name, 0})});
  }
  std::vector<Tensor> results;
  for (Resharding& each : moving) {
    each.pending.wait();
    results.push_back(each.heads);
  }
  return results;
}

std::vector<Tensor> to_tokens(Context& ctx, const HeadGroup& group,
                              std::initializer_list<Travelling> head_shards) {
  const int U = group.comm.size();
  const std::int64_t own = group.layout.count(group.comm.rank());
  std::vector<Resharding> moving;
  for (const auto& [name, heads] : head_shards) {
    const Tensor tokens = ctx.memory.allocate(
        heads.dtype(), {own, heads.extent(1), heads.extent(2) * U, heads.extent(3)}, name);
    const Tensor packed = allocate_packed(ctx, tokens, U);
    moving.push_back(
        {tokens, heads, packed,
         group.comm.all_to_all(parts_of(heads, group.layout), by_peer(packed, U), {name, 0})});
  }
  std::vector<Tensor> results;
  for (Resharding& each : moving) {
    each.pending.wait();
    const std::vector<Tensor> parts = by_peer(each.packed, U);
    for (int peer = 0; peer < U; ++peer)
      ctx.kernels.copy(heads_of(each.tokens, peer, U), parts[static_cast<std::size_t>(peer)]);
    results.push_back(each.tokens);
  }
  return results;
}

}  // namespace sp
