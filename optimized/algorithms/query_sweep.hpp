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
#include <functional>
#include <vector>

#include "optimized/algorithms/bundle.hpp"

namespace sp {

// Which rows of whose queries are needed where, from positions alone: every rank derives the same.
class Route {
 public:
  Route(const Band& band, std::vector<Tokens> queries, std::vector<Tokens> keys)
      : band_(band), queries_(std::move(queries)), keys_(std::move(keys)) {}

  int places() const { return static_cast<int>(queries_.size()); }
  int owner(int place, int step) const { return (place + step) % places(); }
  const Tokens& queries(int owner) const { return queries_[static_cast<std::size_t>(owner)]; }
  const Tokens& keys(int place) const { return keys_[static_cast<std::size_t>(place)]; }
  Rows needed(int owner, int step) const;   // of the owner's rows, at its stop of this step
  Rows carried(int owner, int step) const;  // needed at this stop or a later one

 private:
  Band band_;
  std::vector<Tokens> queries_, keys_;
};

struct SweepBuffers {
  std::array<Bundle, 2> queries;  // arriving queries
  std::array<Bundle, 2> results;  // computed here: one being filled, one on its way home
  Bundle returned;                // results for the own queries
};
// Room for `most` rows of anybody's queries and `own` rows of this rank's; none for a single place.
SweepBuffers allocate_buffers(Context& ctx, const Cargo& cargo, std::int64_t batch, int places,
                              std::int64_t most, std::int64_t own);
std::int64_t buffer_bytes(const Cargo& cargo, std::int64_t batch, int places, std::int64_t most,
                          std::int64_t own);

// compute(owner, rows of the owner, those rows of the bundle, their result), for remote owners
using SweepCompute =
    std::function<void(int owner, Rows rows, const Bundle& queries, const Bundle& result)>;
// merge(rows of the own queries, result for them)
using SweepMerge = std::function<void(Rows rows, const Bundle& result)>;

// `compute_own` runs at step 0, on the own queries. Queries travel on `forth`, results on `back`.
void sweep(Communicator& forth, Communicator& back, const Route& route, const Cargo& cargo,
           const Bundle& own, const SweepBuffers& buffers, const std::function<void()>& compute_own,
           const SweepCompute& compute, const SweepMerge& merge);

// What sweep sends from `place`.
Traffic sweep_traffic(const Route& route, const Cargo& cargo, std::int64_t batch, int place);

}  // namespace sp
