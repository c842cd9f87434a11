// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/nccl_operation.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace sp::emulator {

// Dropped before its end: the device failed or was reset, so the rank will not come any more.
NcclWorld::Operation::~Operation() {
  if (finished_) return;
  {
    const std::lock_guard lock(world_->mutex_);
    std::erase(world_->party(rank_).order, this);
    if (!world_->broken_ && !world_->party(rank_).aborted) {
      world_->broken_ =
          Fault(FaultKind::kDeadlock, fmt::format("rank {} gave up {}", rank_, describe()));
    }
  }
  notify_all_hosts();
}

std::string NcclWorld::Operation::describe() const {
  if (parts_.empty()) return "an empty group";
  std::string words = parts_.front().mine().call.describe();
  if (parts_.size() > 1) words += fmt::format(" and {} more", parts_.size() - 1);
  return words;
}

std::vector<std::pair<int, const NcclCall*>> NcclWorld::Operation::waits_for() const {
  std::vector<std::pair<int, const NcclCall*>> late;
  for (const Part& part : parts_) {
    for (const Place& place : part.meeting->places) {
      if (!place.reached) late.emplace_back(place.rank, &part.mine().call);
    }
  }
  return late;
}

bool NcclWorld::Operation::advance(const Accessor& who) {
  bool moved = false, done = false;
  {
    const std::lock_guard lock(world_->mutex_);
    Party& party = world_->party(rank_);
    if (party.aborted) {
      std::erase(party.order, this);
      return finished_ = true;
    }
    if (party.order.front() != this) return false;
    try {
      if (world_->broken_) throw Fault(*world_->broken_);
      done = advance_parts(who, moved);
    } catch (const Fault& fault) {
      if (!world_->broken_) {
        world_->broken_ = Fault(fault.kind(), fmt::format("rank {}, {}", rank_, fault.what()));
      }
      throw;
    }
    if (done) {
      party.order.pop_front();
      finished_ = true;
    }
  }
  if (moved) notify_all_hosts();
  return done;
}

bool NcclWorld::Operation::advance_parts(const Accessor& who, bool& moved) {
  if (!reached_) {
    reach();
    moved = true;
  }
  bool done = true;
  for (Part& part : parts_) {
    Meeting& meeting = *part.meeting;
    if (!part.given && meeting.reached == meeting.places.size()) {
      give(part, who);
      moved = true;
    }
    if (!part.done && meeting.given == meeting.places.size()) {
      take(part, who);
      moved = true;
    }
    done = done && part.done;
  }
  if (done) return true;
  for (const auto& [other, call] : waits_for()) {
    const Party& party = world_->party(other);
    if (party.left && party.order.empty()) {
      throw Fault(FaultKind::kDeadlock,
                  fmt::format("{} waits for rank {}, which has destroyed its communicator",
                              call->describe(), other));
    }
  }
  return false;
}

void NcclWorld::Operation::reach() {
  reached_ = true;
  for (Part& part : parts_) {
    part.mine().reached = true;
    ++part.meeting->reached;
  }
  if (const auto path = world_->deadlock(rank_)) throw Fault(FaultKind::kDeadlock, *path);
}

void NcclWorld::Operation::give(Part& part, const Accessor& who) {
  Place& mine = part.mine();
  const NcclRegion region = read_by(mine.call, rank_, world_->size());
  part.given = true;
  ++part.meeting->given;
  if (region.bytes == 0) return;
  const std::byte* bytes =
      touch(region.begin, region.bytes, size_of(mine.call.type), Access::kRead, who);
  mine.data.assign(bytes, bytes + region.bytes);
  if (mine.call.kind == NcclKind::kSend && sabotaged("nccl_stale_send")) {
    auto& stale = world_->party(rank_).stale[region.begin];
    if (stale.size() == mine.data.size()) {
      std::swap(stale, mine.data);
    } else {
      stale = mine.data;
    }
  }
}

void NcclWorld::Operation::take(Part& part, const Accessor& who) {
  Meeting& meeting = *part.meeting;
  const NcclCall& call = part.mine().call;
  const NcclRegion region = written_by(call, rank_, world_->size());
  part.done = true;
  if (region.bytes == 0) return;
  std::byte* to = touch(region.begin, region.bytes, size_of(call.type), Access::kWrite, who);
  const auto copy = [&](const std::vector<std::byte>& from, std::size_t offset) {
    std::memcpy(to, from.data() + offset, region.bytes);
  };
  switch (call.kind) {
    case NcclKind::kSend:
      return;
    case NcclKind::kReceive:
      return copy(meeting.places[0].data, 0);
    case NcclKind::kBroadcast:
      return copy(meeting.places[static_cast<std::size_t>(call.peer)].data, 0);
    case NcclKind::kReduce:
    case NcclKind::kAllReduce:
      return copy(reduced(meeting, call), 0);
    case NcclKind::kReduceScatter:
      return copy(reduced(meeting, call), static_cast<std::size_t>(rank_) * region.bytes);
    case NcclKind::kAllGather:
      for (const Place& place : meeting.places) {
        std::memcpy(to, place.data.data(), place.data.size());
        to += place.data.size();
      }
  }
}

const std::vector<std::byte>& NcclWorld::Operation::reduced(Meeting& meeting,
                                                            const NcclCall& call) {
  if (meeting.reduced.empty()) {
    std::vector<const std::vector<std::byte>*> arrays;
    for (const Place& place : meeting.places) arrays.push_back(&place.data);
    if (arrays.size() > 1 && sabotaged("nccl_sum_drops_last_rank")) arrays.pop_back();
    meeting.reduced = reduce_in_any_order(arrays, call.type, call.op, meeting.seed);
  }
  return meeting.reduced;
}

}  // namespace sp::emulator
