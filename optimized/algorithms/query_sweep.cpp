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

SweepBuffers allocate_buffers(Context& ctx, const Cargo& cargo, std::int64_t batch, int places,
                              std::int64_t most, std::int64_t own) {
  SweepBuffers buffers;
  if (places == 1) return buffers;
  for (std::size_t i = 0; i < 2; ++i) {
    buffers.queries[i] = allocate_bundle(ctx, cargo.queries, batch, most);
    buffers.results[i] = allocate_bundle(ctx, cargo.results, batch, most);
  }
  buffers.returned = allocate_bundle(ctx, cargo.results, batch, own);
  return buffers;
}

std::int64_t buffer_bytes(const Cargo& cargo, std::int64_t batch, int places, std::int64_t most,
                          std::int64_t own) {
  if (places == 1) return 0;
  const std::int64_t results = row_bytes(cargo.results, batch);
  return 2 * most * (row_bytes(cargo.queries, batch) + results) + own * results;
}

void sweep(Communicator& forth, Communicator& back, const Route& route, const Cargo& cargo,
           const Bundle& own, const SweepBuffers& buffers, const std::function<void()>& compute_own,
           const SweepCompute& compute, const SweepMerge& merge) {
  const int places = forth.size(), place = forth.rank();
  const auto at = [&](int offset) { return (place + offset + places) % places; };
  Bundle held = own;
  Rows held_rows{0, own.tensors.front().extent(0)};
  Bundle result;  // of the step before, on its way home

  // Sends what step `step` computed to its owner; receives another rank's result for the own
  // queries.
  const auto post_return = [&](int step) {
    const Rows mine = route.needed(place, step);
    const Bundle arriving = buffers.returned.rows(0, mine.count());
    std::vector<Message> sends, receives;
    append(sends, at(step), cargo.results, result, step);
    append(receives, at(-step), cargo.results, arriving, step);
    return std::tuple{back.exchange(std::move(sends), std::move(receives)), mine, arriving};
  };
  const auto finish_return = [&](auto& posted) {
    auto& [pending, mine, arriving] = posted;
    pending.wait();
    if (!mine.empty()) merge(mine, arriving);
  };

  for (int step = 0; step < places; ++step) {
    const int owner = route.owner(place, step);
    Pending queries_pending;
    Bundle next;
    Rows next_rows;
    if (step + 1 < places) {
      const Rows onward = route.carried(owner, step + 1);
      next_rows = route.carried(route.owner(place, step + 1), step + 1);
      next = buffers.queries[static_cast<std::size_t>(step % 2)].rows(0, next_rows.count());
      std::vector<Message> sends, receives;
      const std::int64_t shift = onward.empty() ? onward.begin : held_rows.begin;
      append(sends, at(-1), cargo.queries, held.rows(onward.begin - shift, onward.end - shift),
             step);
      append(receives, at(1), cargo.queries, next, step);
      queries_pending = forth.exchange(std::move(sends), std::move(receives));
    }
    std::tuple<Pending, Rows, Bundle> returning;
    if (step >= 2) returning = post_return(step - 1);
    Bundle computed;
    if (step == 0) {
      compute_own();
    } else {
      const Rows rows = route.needed(owner, step);
      computed = buffers.results[static_cast<std::size_t>(step % 2)].rows(0, rows.count());
      const std::int64_t shift = rows.empty() ? rows.begin : held_rows.begin;
      if (!rows.empty())
        compute(owner, rows, held.rows(rows.begin - shift, rows.end - shift), computed);
    }
    queries_pending.wait();
    if (step >= 2) finish_return(returning);
    result = computed;
    held = next;
    held_rows = next_rows;
  }
  if (places > 1) {
    auto last = post_return(places - 1);
    finish_return(last);
  }
}

Traffic sweep_traffic(const Route& route, const Cargo& cargo, std::int64_t batch, int place) {
  Traffic traffic;
  const auto count = [&](Rows rows, const Fields& fields) {
    if (rows.empty()) return;
    traffic += {rows.count() * row_bytes(fields, batch), static_cast<std::int64_t>(fields.size())};
  };
  for (int step = 0; step < route.places(); ++step) {
    const int owner = route.owner(place, step);
    if (step + 1 < route.places()) count(route.carried(owner, step + 1), cargo.queries);
    if (step > 0) count(route.needed(owner, step), cargo.results);
  }
  return traffic;
}

}  // namespace sp
