// The balanced causal schedule of DistFlashAttn: contiguous shards, P/2 steps; a rank whose own
// keys have run out helps a later one with its queries.
//
// At step t every rank gets one parcel from rank - t (modulo P): the keys of an earlier rank, which
// it computes for itself, or the queries of a later one, which it computes for that rank. Each pair
// of ranks meets once. Parcels of step t + 1 and results of step t - 1 travel while step t computes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/algorithms/attention_pass.hpp"

namespace sp {

enum class Parcel : std::uint8_t { kNone, kKeys, kQueries };

// From positions alone: every rank derives the same.
class BalancedSchedule {
 public:
  BalancedSchedule(const Band& band, const Layout& layout) : band_(band), layout_(layout) {}

  int steps() const { return layout_.ranks() / 2; }
  int shifted(int rank, int by) const;  // modulo P
  int source(int rank, int step) const { return shifted(rank, -step); }
  // What `rank` gets at a step from 1 to steps(); kNone at any other, and where no query sees a key.
  Parcel parcel(int rank, int step) const;
  bool ever(Parcel kind, int rank) const;  // gets it at some step
  bool ever_sends(Parcel kind, int rank) const;

 private:
  Band band_;
  const Layout& layout_;
};

// The own queries meet the keys that arrive, the queries that arrive meet the own `keys`, to which
// gradients from elsewhere are added.
void run_balanced(Context& ctx, const Shards& in, AttentionPass& pass, const Keys& keys);

Traffic balanced_traffic(const Problem& problem, const Layout& layout, const Cargo& cargo,
                         int rank);
// Pairs of queries and keys that meet on a rank.
std::int64_t balanced_pairs(const Problem& problem, const Layout& layout, int rank);

}  // namespace sp
