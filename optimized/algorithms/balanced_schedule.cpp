// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/balanced_schedule.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "optimized/algorithms/blocks.hpp"

namespace sp {
namespace {

constexpr Parcel kKinds[] = {Parcel::kKeys, Parcel::kQueries};

// Room for one kind of parcel: what arrives and what is computed for it, both used in turn, and
// what comes back for the own one.
struct Rooms {
  std::array<Bundle, 2> arriving, results;
  Bundle returned;
};

Rooms allocate_rooms(Context& ctx, const Shards& in, const BalancedSchedule& schedule, Parcel kind,
                     const ParcelFields& fields) {
  const std::int64_t B = in.problem.shape.B, most = largest_shard(in.layout);
  Rooms rooms;
  if (schedule.ever(kind, ctx.comm.rank())) {
    for (Bundle& arriving : rooms.arriving) arriving = allocate_bundle(ctx, fields.sent, B, most);
    for (Bundle& result : rooms.results) result = allocate_bundle(ctx, fields.results, B, most);
  }
  if (schedule.ever_sends(kind, ctx.comm.rank()))
    rooms.returned = allocate_bundle(ctx, fields.results, B, in.layout.count(ctx.comm.rank()));
  return rooms;
}

}  // namespace

int BalancedSchedule::shifted(int rank, int by) const {
  return (rank + by + layout_.ranks()) % layout_.ranks();
}

Parcel BalancedSchedule::parcel(int rank, int step) const {
  if (step < 1 || step > steps()) return Parcel::kNone;
  const int from = source(rank, step);
  // Of an even number of ranks the two at distance P/2 would do the same block twice.
  if (from > rank && 2 * step == layout_.ranks()) return Parcel::kNone;
  const auto [earlier, later] = std::minmax(rank, from);
  if (!any_visible(band_, layout_.tokens(later), layout_.tokens(earlier))) return Parcel::kNone;
  return from < rank ? Parcel::kKeys : Parcel::kQueries;
}

bool BalancedSchedule::ever(Parcel kind, int rank) const {
  for (int step = 1; step <= steps(); ++step) {
    if (parcel(rank, step) == kind) return true;
  }
  return false;
}

bool BalancedSchedule::ever_sends(Parcel kind, int rank) const {
  for (int step = 1; step <= steps(); ++step) {
    if (parcel(shifted(rank, step), step) == kind) return true;
  }
  return false;
}

void run_balanced(Context& ctx, const Shards& in, const Parcels& parcels, const Bundle& own_keys,
                  const Bundle& own_queries, const std::function<void()>& compute_own,
                  const ParcelCompute& compute, const ParcelMerge& merge) {
  const BalancedSchedule schedule(in.mask.band, in.layout);
  const int rank = ctx.comm.rank();
  const Rooms key_rooms = allocate_rooms(ctx, in, schedule, Parcel::kKeys, parcels.keys);
  const Rooms query_rooms = allocate_rooms(ctx, in, schedule, Parcel::kQueries, parcels.queries);
  const auto rooms_of = [&](Parcel kind) -> const Rooms& {
    return kind == Parcel::kKeys ? key_rooms : query_rooms;
  };
  const auto room = [&](const std::array<Bundle, 2>& rooms, int step) {
    return rooms[static_cast<std::size_t>(step % 2)].rows(
        0, in.layout.count(schedule.source(rank, step)));
  };
  // One round more than steps: the last results have nothing left to hide behind.
  for (int step = 0, last = schedule.steps(); step <= last + 1; ++step) {
    std::vector<Message> sends, receives;
    const int next = step + 1, before = step - 1;
    const int reader = schedule.shifted(rank, next), writer = schedule.source(rank, next);
    if (const Parcel kind = schedule.parcel(reader, next); kind != Parcel::kNone) {
      append(sends, reader, parcels.of(kind).sent, kind == Parcel::kKeys ? own_keys : own_queries,
             next);
    }
    if (const Parcel kind = schedule.parcel(rank, next); kind != Parcel::kNone)
      append(receives, writer, parcels.of(kind).sent, room(rooms_of(kind).arriving, next), next);
    if (const Parcel kind = schedule.parcel(rank, before); kind != Parcel::kNone) {
      append(sends, schedule.source(rank, before), parcels.of(kind).results,
             room(rooms_of(kind).results, before), before);
    }
    const int helper = schedule.shifted(rank, before);
    const Parcel back = schedule.parcel(helper, before);
    if (back != Parcel::kNone)
      append(receives, helper, parcels.of(back).results, rooms_of(back).returned, before);
    Pending pending = ctx.comm.exchange(std::move(sends), std::move(receives));
    if (step == 0) compute_own();
    if (const Parcel kind = schedule.parcel(rank, step); kind != Parcel::kNone) {
      compute(kind, schedule.source(rank, step), room(rooms_of(kind).arriving, step),
              room(rooms_of(kind).results, step));
    }
    pending.wait();
    if (back != Parcel::kNone && !parcels.of(back).results.empty())
      merge(back, rooms_of(back).returned);
  }
}

Traffic balanced_traffic(const Problem& problem, const Layout& layout, const Parcels& parcels,
                         int rank) {
  const BalancedSchedule schedule(band_of(problem), layout);
  Traffic traffic;
  const auto count = [&](int rows_of, const Fields& fields) {
    traffic += {layout.count(rows_of) * row_bytes(fields, problem.shape.B),
                static_cast<std::int64_t>(fields.size())};
  };
  for (int step = 1; step <= schedule.steps(); ++step) {
    const Parcel sent = schedule.parcel(schedule.shifted(rank, step), step);
    if (sent != Parcel::kNone) count(rank, parcels.of(sent).sent);
    const Parcel got = schedule.parcel(rank, step);
    if (got != Parcel::kNone) count(schedule.source(rank, step), parcels.of(got).results);
  }
  return traffic;
}

std::int64_t balanced_memory(const Problem& problem, const Layout& layout, const Parcels& parcels,
                             int rank) {
  const BalancedSchedule schedule(band_of(problem), layout);
  const std::int64_t B = problem.shape.B;
  std::int64_t bytes = 0;
  for (const Parcel kind : kKinds) {
    const std::int64_t result = row_bytes(parcels.of(kind).results, B);
    if (schedule.ever(kind, rank))
      bytes += 2 * largest_shard(layout) * (row_bytes(parcels.of(kind).sent, B) + result);
    if (schedule.ever_sends(kind, rank)) bytes += layout.count(rank) * result;
  }
  return bytes;
}

std::int64_t balanced_pairs(const Problem& problem, const Layout& layout, int rank) {
  const BalancedSchedule schedule(band_of(problem), layout);
  const Tokens mine = layout.tokens(rank);
  std::int64_t pairs = visible_pairs(band_of(problem), mine, mine);
  for (int step = 1; step <= schedule.steps(); ++step) {
    const Tokens others = layout.tokens(schedule.source(rank, step));
    const Parcel kind = schedule.parcel(rank, step);
    if (kind == Parcel::kKeys) pairs += visible_pairs(band_of(problem), mine, others);
    if (kind == Parcel::kQueries) pairs += visible_pairs(band_of(problem), others, mine);
  }
  return pairs;
}

}  // namespace sp
