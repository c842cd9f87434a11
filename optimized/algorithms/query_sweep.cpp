// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/query_sweep.hpp"

namespace sp {

Rows Route::needed(int owner, int step) const {
  const int stop = (owner - step + places()) % places();
  return visible_rows(band_, queries(owner), keys(stop));
}

Rows Route::carried(int owner, int step) const {
  Rows rows;
  for (int later = step; later < places(); ++later) rows = hull(rows, needed(owner, later));
  return rows;
}

SweepBuffers allocate_buffers(Context& ctx, const AttentionPass& pass, int places,
                              std::int64_t most) {
  SweepBuffers buffers;
  if (places == 1) return buffers;
  for (std::size_t i = 0; i < 2; ++i) {
    buffers.queries[i] = allocate_block(ctx, pass.queries(), most);
    buffers.results[i] = pass.allocate_results(most);
  }
  buffers.returned = pass.allocate_results(pass.queries().tokens.count());
  return buffers;
}

void sweep(Communicator& forth, Communicator& back, const Route& route, AttentionPass& pass,
           const Keys& keys, const SweepBuffers& buffers) {
  const int places = forth.size(), place = forth.rank();
  const auto at = [&](int offset) { return (place + offset + places) % places; };
  Queries held = pass.queries();
  Rows held_rows{0, held.tokens.count()};
  Results result;  // of the step before, on its way home

  const auto part_of_held = [&](Rows rows) {
    const std::int64_t shift = rows.empty() ? rows.begin : held_rows.begin;
    return held.rows({rows.begin - shift, rows.end - shift});
  };
  // Sends what step `step` computed to its owner; receives another rank's result for the own
  // queries.
  struct Return {
    Pending pending;
    Rows rows;
    Results arriving;
  };
  const auto post_return = [&](int step) {
    const Rows mine = route.needed(place, step);
    Return returning{{}, mine, first_rows(buffers.returned, mine.count())};
    std::vector<Message> sends, receives;
    append(sends, at(step), result, step);
    append(receives, at(-step), returning.arriving, step);
    returning.pending = back.exchange(std::move(sends), std::move(receives));
    return returning;
  };
  const auto finish_return = [&](Return& returning) {
    returning.pending.wait();
    if (!returning.rows.empty()) pass.merge(returning.rows, returning.arriving);
  };

  for (int step = 0; step < places; ++step) {
    const int owner = route.owner(place, step), next_owner = route.owner(place, step + 1);
    Pending queries_pending;
    Queries next;
    Rows next_rows;
    if (step + 1 < places) {
      next_rows = route.carried(next_owner, step + 1);
      next = first_rows(buffers.queries[static_cast<std::size_t>(step % 2)], next_rows.count());
      next.tokens = route.queries(next_owner).slice(next_rows.begin, next_rows.end);
      std::vector<Message> sends, receives;
      append(sends, at(-1), part_of_held(route.carried(owner, step + 1)), step);
      append(receives, at(1), next, step);
      queries_pending = forth.exchange(std::move(sends), std::move(receives));
    }
    Return returning;
    if (step >= 2) returning = post_return(step - 1);
    Results computed;
    if (step == 0) {
      pass.attend(keys);
    } else {
      const Rows rows = route.needed(owner, step);
      computed = first_rows(buffers.results[static_cast<std::size_t>(step % 2)], rows.count());
      if (!rows.empty()) pass.serve(part_of_held(rows), keys, computed);
    }
    queries_pending.wait();
    if (step >= 2) finish_return(returning);
    result = computed;
    held = next;
    held_rows = next_rows;
  }
  if (places > 1) {
    Return last = post_return(places - 1);
    finish_return(last);
  }
}

Traffic sweep_traffic(const Route& route, const Cargo& cargo, int place) {
  Traffic traffic;
  for (int step = 0; step < route.places(); ++step) {
    const int owner = route.owner(place, step);
    if (step + 1 < route.places())
      traffic += cargo.queries.of(route.carried(owner, step + 1).count());
    if (step > 0) traffic += cargo.results.of(route.needed(owner, step).count());
  }
  return traffic;
}

}  // namespace sp
