// SPDX-License-Identifier: Apache-2.0
#include "optimized/algorithms/balanced_schedule.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace sp {
namespace {

// Room for one kind of parcel: what arrives and what is computed for it, both used in turn, and
// what comes back for the own one. Results for keys are sums of their gradients: none in forward.
template <class Sent, class Back>
struct Rooms {
  std::array<Sent, 2> arriving;
  std::array<Back, 2> results;
  Back returned;
};

template <class Sent, class Back>
Rooms<Sent, Back> allocate_rooms(Context& ctx, const Layout& layout,
                                 const BalancedSchedule& schedule, Parcel kind, const Sent& sent,
                                 const Back& result) {
  const int rank = ctx.comm.rank();
  const std::int64_t most = largest_shard(layout);
  Rooms<Sent, Back> rooms;
  if (schedule.ever(kind, rank)) {
    for (Sent& arriving : rooms.arriving) arriving = allocate_block(ctx, sent, most);
    for (Back& back : rooms.results) back = allocate_block(ctx, result, most);
  }
  if (schedule.ever_sends(kind, rank))
    rooms.returned = allocate_block(ctx, result, layout.count(rank));
  return rooms;
}

// What a parcel of this kind weighs, and what comes back for it.
std::pair<Freight, Freight> freight_of(const Cargo& cargo, Parcel kind) {
  if (kind == Parcel::kKeys) return {cargo.keys, cargo.key_gradients};
  return {cargo.queries, cargo.results};
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

void run_balanced(Context& ctx, const Shards& in, AttentionPass& pass, const Keys& keys) {
  const BalancedSchedule schedule(in.mask.band, in.layout);
  const int rank = ctx.comm.rank();
  const Keys own_keys{keys.tokens, keys.k, keys.v}, sums{{}, {}, {}, keys.d_k, keys.d_v};
  const auto key_rooms = allocate_rooms(ctx, in.layout, schedule, Parcel::kKeys, own_keys, sums);
  const auto query_rooms = allocate_rooms(ctx, in.layout, schedule, Parcel::kQueries,
                                          pass.queries(), pass.allocate_results(0));
  // f(what is sent, its rooms) for a kind of parcel
  const auto with = [&](Parcel kind, auto&& f) {
    if (kind == Parcel::kKeys) f(own_keys, key_rooms);
    if (kind == Parcel::kQueries) f(pass.queries(), query_rooms);
  };
  const auto room = [&](const auto& rooms, int step) {
    return first_rows(rooms[static_cast<std::size_t>(step % 2)],
                      in.layout.count(schedule.source(rank, step)));
  };
  // One round more than steps: the last results have nothing left to hide behind.
  for (int step = 0, last = schedule.steps(); step <= last + 1; ++step) {
    std::vector<Message> sends, receives;
    const int next = step + 1, before = step - 1;
    const int reader = schedule.shifted(rank, next), helper = schedule.shifted(rank, before);
    const Parcel back = schedule.parcel(helper, before);
    with(schedule.parcel(reader, next),
         [&](const auto& own, const auto&) { append(sends, reader, own, next); });
    with(schedule.parcel(rank, next), [&](const auto&, const auto& rooms) {
      append(receives, schedule.source(rank, next), room(rooms.arriving, next), next);
    });
    with(schedule.parcel(rank, before), [&](const auto&, const auto& rooms) {
      append(sends, schedule.source(rank, before), room(rooms.results, before), before);
    });
    with(back,
         [&](const auto&, const auto& rooms) { append(receives, helper, rooms.returned, before); });
    Pending pending = ctx.comm.exchange(std::move(sends), std::move(receives));
    if (step == 0) pass.begin(keys);
    const Tokens theirs = in.layout.tokens(schedule.source(rank, step));
    switch (schedule.parcel(rank, step)) {
      case Parcel::kKeys: {
        const Keys held = room(key_rooms.arriving, step), share = room(key_rooms.results, step);
        if (pass.backward()) {
          ctx.kernels.fill(share.d_k, 0);
          ctx.kernels.fill(share.d_v, 0);
        }
        pass.attend({theirs, held.k, held.v, share.d_k, share.d_v});
        break;
      }
      case Parcel::kQueries: {
        Queries held = room(query_rooms.arriving, step);
        held.tokens = theirs;
        pass.serve(held, keys, room(query_rooms.results, step));
        break;
      }
      case Parcel::kNone:
        break;
    }
    pending.wait();
    if (back == Parcel::kQueries) pass.merge({0, in.q.extent(0)}, query_rooms.returned);
    if (back == Parcel::kKeys && pass.backward()) {
      ctx.kernels.add(keys.d_k, key_rooms.returned.d_k);
      ctx.kernels.add(keys.d_v, key_rooms.returned.d_v);
    }
  }
}

Traffic balanced_traffic(const Problem& problem, const Layout& layout, const Cargo& cargo,
                         int rank) {
  const BalancedSchedule schedule(band_of(problem), layout);
  Traffic traffic;
  for (int step = 1; step <= schedule.steps(); ++step) {
    const Parcel sent = schedule.parcel(schedule.shifted(rank, step), step);
    if (sent != Parcel::kNone) traffic += freight_of(cargo, sent).first.of(layout.count(rank));
    const Parcel got = schedule.parcel(rank, step);
    if (got != Parcel::kNone)
      traffic += freight_of(cargo, got).second.of(layout.count(schedule.source(rank, step)));
  }
  return traffic;
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
