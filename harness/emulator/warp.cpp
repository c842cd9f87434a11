// What lanes do together: barriers, shuffles, votes; and the story when they do not meet.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <bit>

#include "harness/emulator/block.hpp"

namespace sp::emulator {
namespace {

std::string ranges(std::uint32_t mask) {
  std::string text;
  while (mask != 0) {
    const int first = std::countr_zero(mask);
    const int last = first + std::countr_one(mask >> first) - 1;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", first);
    if (last > first) text += fmt::format("-{}", last);
    mask = last == 31 ? 0 : mask >> (last + 1) << (last + 1);
  }
  return text;
}

void describe(std::string& text, std::uint32_t mask, const std::string& state) {
  if (mask == 0) return;
  text += fmt::format("{}lane{} {} {}", text.empty() ? "" : ", ",
                      std::has_single_bit(mask) ? "" : "s", ranges(mask), state);
}

struct Vote {
  bool predicate;
  std::uint32_t result;
};
struct Shuffle {
  std::uint64_t value;
  int from;
  std::uint64_t result;
};

void perform_nothing(Warp&) {}

void perform_warp_barrier(Warp& warp) {
  warp.interval = warp.block->shared.new_interval();
  ++warp.barriers;
}

void perform_ballot(Warp& warp) {
  std::uint32_t votes = 0;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    votes |= static_cast<std::uint32_t>(warp.of<Vote>(lane).predicate) << lane;
  }
  if (warp.block->sabotage.ballot_first_lane) votes = (votes & 1u) != 0 ? kAllLanes : 0;
  for (int lane = 0; lane < kWarpLanes; ++lane) warp.of<Vote>(lane).result = votes;
}

void perform_shuffle(Warp& warp) {
  const int off = warp.block->sabotage.shuffle_neighbour ? 1 : 0;
  for (int lane = 0; lane < kWarpLanes; ++lane) {
    Shuffle& shuffle = warp.of<Shuffle>(lane);
    shuffle.result = warp.of<Shuffle>((shuffle.from + off) & (kWarpLanes - 1)).value;
  }
}

constexpr WarpOperation kWarpBarrier{"warp_barrier", perform_warp_barrier};
constexpr WarpOperation kWarpBarrierIgnored{"warp_barrier", perform_nothing};
constexpr WarpOperation kBallot{"a vote", perform_ballot};
constexpr WarpOperation kShuffle{"shuffle", perform_shuffle};

}  // namespace

// ---- Where the current lane is -----------------------------------------------------------------

uint3 thread_index() {
  const Unseen unseen;
  return current_lane->index;
}
uint3 block_index() {
  const Unseen unseen;
  return current_lane->block->index;
}
uint3 block_dimensions() {
  const Unseen unseen;
  const dim3& shape = current_lane->block->launch->block;
  return {shape.x, shape.y, shape.z};
}
uint3 grid_dimensions() {
  const Unseen unseen;
  const dim3& shape = current_lane->block->launch->grid;
  return {shape.x, shape.y, shape.z};
}
int lane() {
  const Unseen unseen;
  return current_lane->number();
}

// ---- Stories -----------------------------------------------------------------------------------

void Block::fail(FaultKind kind, const Lane& lane, const std::string& story) const {
  throw LocatedFault(
      kind,
      fmt::format("kernel '{}', block ({}, {}, {}), thread {} (warp {}, lane {}): {}", launch->name,
                  index.x, index.y, index.z, lane.thread, lane.warp->number, lane.number(), story));
}

std::exception_ptr Block::located(const Fault& fault, const Lane& lane) const {
  try {
    fail(fault.kind(), lane, fault.what());
  } catch (...) {
    return std::current_exception();
  }
}

void Block::diverge(const Lane& lane, const std::string& what) const {
  fail(FaultKind::kDivergentBarrier, lane, fmt::format("{}, but {}", what, whereabouts()));
}

std::string Block::whereabouts() const {
  std::string text;
  for (const Warp& warp : warps) {
    if ((warp.at_operation | warp.at_barrier | warp.gone) == 0) continue;
    std::string states;
    if (warp.operation != nullptr) {
      describe(states, warp.at_operation, fmt::format("at {}", warp.operation->name));
    }
    describe(states, warp.at_barrier, "at block_barrier");
    describe(states, warp.gone, "returned");
    describe(states, warp.runnable, "under way");
    text += fmt::format("{}warp {}: {}", text.empty() ? "" : "; ", warp.number, states);
  }
  return text;
}

// ---- Rendezvous --------------------------------------------------------------------------------

void meet(const WarpOperation& operation, void* operands) {
  Lane& lane = *current_lane;
  Block& block = *lane.block;
  Warp& warp = *lane.warp;
  if (warp.lanes != kAllLanes) {
    block.fail(
        FaultKind::kDivergentBarrier, lane,
        fmt::format("meets {} in a warp of {} lanes", operation.name, std::popcount(warp.lanes)));
  }
  if ((warp.at_barrier | warp.gone) != 0 ||
      (warp.at_operation != 0 && warp.operation != &operation)) {
    block.diverge(lane, fmt::format("meets {}", operation.name));
  }
  warp.operation = &operation;
  warp.operands[lane.number()] = operands;
  warp.at_operation |= lane.bit();
  if (warp.at_operation != kAllLanes) {
    block.stop(lane);
    block.suspend();
    return;
  }
  operation.perform(warp);
  warp.at_operation = 0;
  if (block.counter) block.counter->flush(warp.number * kWarpLanes, kWarpLanes);
  block.resume(warp);
  block.yield(false);
}

void block_barrier() {
  const Unseen unseen;
  Lane& lane = *current_lane;
  Block& block = *lane.block;
  if (block.sabotage.barrier_ignored) return;
  if (lane.warp->at_operation != 0 || block.gone > 0) block.diverge(lane, "meets block_barrier");
  char* const tsan_address = &block.tsan_barrier[block.barriers % 2];
  tsan_release(tsan_address);
  lane.warp->at_barrier |= lane.bit();
  if (++block.waiting < block.threads) {
    block.stop(lane);
    block.suspend();
  } else {
    block.pass_barrier();
    block.yield(true);
  }
  tsan_acquire(tsan_address);
}

void warp_barrier() {
  const Unseen unseen;
  Warp& warp = *current_lane->warp;
  if (warp.block->sabotage.warp_barrier_ignored) return meet(kWarpBarrierIgnored, nullptr);
  char* const tsan_address = &warp.tsan_barrier[warp.barriers % 2];
  tsan_release(tsan_address);
  meet(kWarpBarrier, nullptr);
  tsan_acquire(tsan_address);
}

std::uint32_t ballot(bool predicate) {
  const Unseen unseen;
  Vote vote{predicate, 0};
  meet(kBallot, &vote);
  return vote.result;
}

std::uint64_t shuffle_bits(std::uint64_t value, int lane) {
  const Unseen unseen;
  Shuffle shuffle{value, lane & (kWarpLanes - 1), 0};
  meet(kShuffle, &shuffle);
  return shuffle.result;
}

}  // namespace sp::emulator
