// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/shared_memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "harness/emulator/block.hpp"

namespace sp::emulator {
namespace {

constexpr Stamp kThreadMask = (Stamp{1} << kThreadBits) - 1;
constexpr std::byte kPoison{0xff};  // NaN in every type, an impossible index

int thread_of(Stamp stamp) { return static_cast<int>(stamp & kThreadMask); }
bool same_thread(Stamp a, Stamp b) { return ((a ^ b) & kThreadMask) == 0; }
bool same_warp(Stamp a, Stamp b) { return ((a ^ b) & kThreadMask) < kWarpLanes; }

std::string who(Stamp stamp) {
  const int thread = thread_of(stamp);
  return fmt::format("thread {} (warp {}, lane {})", thread, thread / kWarpLanes,
                     thread % kWarpLanes);
}

}  // namespace

SharedMemory::SharedMemory() {
  static std::byte* const address = [] {
    constexpr std::size_t kWindow = std::size_t{2} << 20;  // to both sides
    void* const window =
        mmap(nullptr, 2 * kWindow, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (window == MAP_FAILED) throw std::bad_alloc();
    return static_cast<std::byte*>(window) + kWindow;
  }();
  base_ = address;
}

void SharedMemory::begin_block(std::size_t bytes, int warps) {
  bytes_ = bytes;
  if (bytes > capacity_) {
    capacity_ = (bytes + 1023) / 1024 * 1024;
    data_ = std::make_unique<std::byte[]>(capacity_);
    clear();
  } else if (next_interval_ > kMostIntervals / 2) {
    clear();
  }
  std::fill_n(data_.get(), bytes, kPoison);
  order_block(warps);
  floor_ = first_;
}

void SharedMemory::order_block(int warps) {
  first_ = next_interval_ << kThreadBits;
  for (int warp = 0; warp < warps; ++warp) new_interval();
}

Stamp SharedMemory::new_interval() {
  if (next_interval_ + 1 >= kMostIntervals) {
    throw Fault(FaultKind::kResources, "a block with more barriers than the emulator can number");
  }
  return next_interval_++;
}

void SharedMemory::clear() {
  const std::size_t cells = capacity_ / kCell;
  writer_.assign(cells, 0);
  reader_.assign(cells, 0);
  other_reader_.assign(cells, 0);
  next_interval_ = 1;
}

Stamp SharedMemory::stamp(const Lane& lane) {
  return lane.warp->interval << kThreadBits | static_cast<Stamp>(lane.thread);
}

void SharedMemory::refuse(std::size_t offset, std::size_t bytes, const Lane& lane,
                          const char* what) const {
  const bool inside = offset < bytes_ && bytes_ - offset >= bytes;
  lane.block->fail(inside ? FaultKind::kMisaligned : FaultKind::kOutOfBounds, lane,
                   fmt::format("{} of {} bytes at byte {} of shared memory, which has {}", what,
                               bytes, static_cast<std::ptrdiff_t>(offset), bytes_));
}

bool SharedMemory::ordered(Stamp earlier, Stamp now) const {
  return earlier < first_ || same_thread(earlier, now) ||
         (same_warp(earlier, now) && (earlier ^ now) >> kThreadBits != 0);
}

// Whom to remember besides `now`, the last reader: of another warp than it, if there is one.
Stamp SharedMemory::keep(Stamp last, Stamp other, Stamp now) const {
  if (same_thread(last, now)) return other;
  const bool better = same_warp(last, now) && other >= first_ && !same_warp(other, now);
  return better ? other : last;
}

template <int kCells>
void SharedMemory::check_read(std::size_t cell, const Lane& lane) {
  const Stamp* const writer = &writer_[cell];
  Stamp* const reader = &reader_[cell];
  Stamp* const other_reader = &other_reader_[cell];
  const Stamp floor = floor_, last = first_ - 1;
  std::uint32_t strange = 0;  // its sign: not written in this block before its last barrier
  for (int i = 0; i < kCells; ++i) strange |= (writer[i] - floor) | (last - writer[i]);
  if (strange >> 31 != 0) explain_read(cell, kCells, lane);

  const Stamp now = stamp(lane);
  std::uint32_t different = 0;  // from the first cell
  for (int i = 1; i < kCells; ++i) {
    different |= (reader[i] ^ reader[0]) | (other_reader[i] ^ other_reader[0]);
  }
  if (different == 0) {
    const Stamp kept = keep(reader[0], other_reader[0], now);
    for (int i = 0; i < kCells; ++i) reader[i] = now;
    for (int i = 0; i < kCells; ++i) other_reader[i] = kept;
  } else {
    for (int i = 0; i < kCells; ++i) {
      other_reader[i] = keep(reader[i], other_reader[i], now);
      reader[i] = now;
    }
  }
}

template <int kCells>
void SharedMemory::check_write(std::size_t cell, const Lane& lane, Stamp written) {
  Stamp* const writer = &writer_[cell];
  const Stamp* const reader = &reader_[cell];
  const Stamp* const other_reader = &other_reader_[cell];
  const Stamp first = first_;
  std::uint32_t earlier = ~std::uint32_t{0};  // its sign: all before the block's last barrier
  for (int i = 0; i < kCells; ++i) {
    earlier &= (writer[i] - first) & (reader[i] - first) & (other_reader[i] - first);
  }
  if (earlier >> 31 == 0) explain_write(cell, kCells, lane);
  for (int i = 0; i < kCells; ++i) writer[i] = written;
}

void SharedMemory::explain_read(std::size_t cell, int cells, const Lane& lane) const {
  const Stamp now = stamp(lane);
  for (std::size_t c = cell; c < cell + static_cast<std::size_t>(cells); ++c) {
    const Stamp writer = writer_[c];
    if (writer == kInFlight) {
      lane.block->fail(FaultKind::kAsyncCopy, lane,
                       fmt::format("read of shared byte {} while an asynchronous copy into it is "
                                   "under way",
                                   c * kCell));
    }
    if (writer < floor_) {
      lane.block->fail(FaultKind::kUninitialised, lane,
                       fmt::format("read of shared byte {}, which nobody wrote", c * kCell));
    }
    if (!ordered(writer, now)) race(c, "read", "write", writer, lane);
  }
}

void SharedMemory::explain_write(std::size_t cell, int cells, const Lane& lane) const {
  const Stamp now = stamp(lane);
  for (std::size_t c = cell; c < cell + static_cast<std::size_t>(cells); ++c) {
    if (writer_[c] == kInFlight) {
      lane.block->fail(FaultKind::kAsyncCopy, lane,
                       fmt::format("write to shared byte {} while an asynchronous copy into it is "
                                   "under way",
                                   c * kCell));
    }
    if (!ordered(writer_[c], now)) race(c, "write", "write", writer_[c], lane);
    if (!ordered(reader_[c], now)) race(c, "write", "read", reader_[c], lane);
    if (!ordered(other_reader_[c], now)) race(c, "write", "read", other_reader_[c], lane);
  }
}

void SharedMemory::race(std::size_t cell, const char* what, const char* earlier_what, Stamp earlier,
                        const Lane& lane) const {
  const bool warp = same_warp(earlier, stamp(lane));
  lane.block->fail(FaultKind::kRace, lane,
                   fmt::format("{} of shared byte {} races with the {} by {}: no {} between", what,
                               cell * kCell, earlier_what, who(earlier),
                               warp ? "warp_barrier or block_barrier" : "block_barrier"));
}

std::size_t SharedMemory::begin_copy(const void* address, const Lane& lane) {
  const std::size_t offset = locate(address, 16, lane, "asynchronous copy");
  check_write<16 / kCell>(offset / kCell, lane, kInFlight);
  return offset;
}

void SharedMemory::end_copy(std::size_t offset, const Lane& lane) {
  std::fill_n(writer_.begin() + static_cast<std::ptrdiff_t>(offset / kCell), 16 / kCell,
              stamp(lane));
}

// ---- What device code calls --------------------------------------------------------------------

std::byte* shared_memory() {
  const Unseen unseen;
  return current_lane->block->shared.base();
}

template <int kBytes>
const std::byte* read_shared(const void* address) {
  const Unseen unseen;
  const Lane& lane = *current_lane;
  Block& block = *lane.block;
  if (block.counter) [[unlikely]]
    block.counter->shared(lane.thread, block.shared.offset_of(address), kBytes);
  return block.shared.read<kBytes>(address, lane);
}

template <int kBytes>
std::byte* write_shared(void* address) {
  const Unseen unseen;
  const Lane& lane = *current_lane;
  Block& block = *lane.block;
  if (block.counter) [[unlikely]]
    block.counter->shared(lane.thread, block.shared.offset_of(address), kBytes);
  return block.shared.write<kBytes>(address, lane);
}

template const std::byte* read_shared<2>(const void*);
template const std::byte* read_shared<4>(const void*);
template const std::byte* read_shared<8>(const void*);
template const std::byte* read_shared<16>(const void*);
template std::byte* write_shared<2>(void*);
template std::byte* write_shared<4>(void*);
template std::byte* write_shared<8>(void*);
template std::byte* write_shared<16>(void*);

// For tensor_core.cpp: rows are read by 16 bytes.
template void SharedMemory::check_read<8>(std::size_t, const Lane&);

}  // namespace sp::emulator
