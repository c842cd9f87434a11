// One sweep of TokenRing: queries travel around a ring of ranks whose keys stay, results go
// straight back to their owner.
//
// Place r of G holds the queries of owner (r + t) mod G at step t and passes them to place r - 1.
// What it computed at step t goes home while step t + 1 computes; the last return has nothing left
// to hide behind. Only rows travel that a later stop can see: a route shrinks and never grows
// (zigzag: the second half after the wrap; contiguous causal: nothing).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "optimized/algorithms/attention_pass.hpp"

namespace sp {

// Which rows of whose queries are needed where, from positions alone: every rank derives the same.
class Route {
 public:
  Route(const Band& band, Layout queries, Layout keys)
      : band_(band), queries_(std::move(queries)), keys_(std::move(keys)) {}

  int places() const { return queries_.ranks(); }
  int owner(int place, int step) const { return (place + step) % places(); }
  Tokens queries(int owner) const { return queries_.tokens(owner); }
  Tokens keys(int place) const { return keys_.tokens(place); }
  Rows needed(int owner, int step) const;   // of the owner's rows, at its stop of this step
  Rows carried(int owner, int step) const;  // needed at this stop or a later one

 private:
  Band band_;
  Layout queries_, keys_;
};

struct SweepBuffers {
  std::array<Queries, 2> queries;  // arriving queries
  std::array<Results, 2> results;  // computed here: one being filled, one on its way home
  Results returned;                // results for the own queries
};
// Room for `most` rows of anybody's queries and those of this rank; none for a single place.
SweepBuffers allocate_buffers(Context& ctx, const AttentionPass& pass, int places,
                              std::int64_t most);

// The queries of all places meet `keys`, the own ones first. Queries travel on `forth`, results on
// `back`.
void sweep(Communicator& forth, Communicator& back, const Route& route, AttentionPass& pass,
           const Keys& keys, const SweepBuffers& buffers);

// What sweep sends from `place`.
Traffic sweep_traffic(const Route& route, const Cargo& cargo, int place);

}  // namespace sp
