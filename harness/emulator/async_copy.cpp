// Asynchronous copies: under way from their issue to the wait of the lane that issued them.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "harness/emulator/block.hpp"

namespace sp::emulator {
namespace {

constexpr int kCopyBytes = 16;

void land(SharedMemory& shared, const AsyncCopy& copy) {
  if (copy.from != nullptr) {
    std::memcpy(shared.bytes_at(copy.offset), copy.from, kCopyBytes);
  } else {
    std::memset(shared.bytes_at(copy.offset), 0, kCopyBytes);
  }
}

}  // namespace

void async_copy_16(void* shared_to, const void* global_from, bool valid) {
  const Unseen unseen;
  Lane& lane = *current_lane;
  Block& block = *lane.block;
  AsyncCopy copy;
  copy.group = lane.copies.group;
  copy.offset = block.shared.begin_copy(shared_to, lane);
  if (block.counter) [[unlikely]]
    block.counter->shared(lane.thread, copy.offset, kCopyBytes);
  if (valid) {
    copy.from = touch(global_from, kCopyBytes, kCopyBytes, Access::kRead, block.who);
    if (block.counter) [[unlikely]]
      block.counter->global(lane.thread, global_from, kCopyBytes);
  }
  // Nobody may look before the wait: when the bytes land shows only in what they are, those of the
  // source at that moment.
  const bool skipped = !valid && block.sabotage.async_zero_fill_ignored;
  if (!skipped && block.copies_land_early) land(block.shared, copy);
  copy.landed = skipped || block.copies_land_early;
  lane.copies.pending.push_back(copy);
}

void async_commit() {
  const Unseen unseen;
  Lane& lane = *current_lane;
  if (!lane.block->sabotage.async_commit_ignored) ++lane.copies.group;
}

void async_wait(int pending) {
  const Unseen unseen;
  Lane& lane = *current_lane;
  Block& block = *lane.block;
  if (block.sabotage.async_wait_ignored) return;
  std::vector<AsyncCopy>& copies = lane.copies.pending;
  std::size_t done = 0;  // groups complete in order
  while (done < copies.size() &&
         copies[done].group + static_cast<std::uint32_t>(pending) < lane.copies.group) {
    if (!copies[done].landed) land(block.shared, copies[done]);
    block.shared.end_copy(copies[done].offset, lane);
    ++done;
  }
  copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace sp::emulator
