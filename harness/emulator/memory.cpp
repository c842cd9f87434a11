// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <stdexcept>

namespace sp::emulator {
namespace {

constexpr std::size_t kAlignment = 256;  // and the least gap between two allocations
constexpr std::size_t kGraves = 512;
constexpr int kPoison = 0xff;  // NaN in every type

std::size_t room_for(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment + kAlignment;
}

void* map_pages(std::size_t bytes, int access) {
  void* pages =
      mmap(nullptr, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, /*fd=*/-1, 0);
  if (pages == MAP_FAILED) throw std::runtime_error("the emulator found no room for its memory");
  return pages;
}

}  // namespace

std::byte* arena(int device) {
  static std::byte* const first =
      static_cast<std::byte*>(map_pages(kMaxDevices * kArenaBytes, PROT_NONE));
  return first + static_cast<std::size_t>(device) * kArenaBytes;
}

int device_of(const void* address) {
  const std::size_t offset =
      reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(arena(0));
  return offset < kMaxDevices * kArenaBytes ? static_cast<int>(offset >> kArenaBits) : -1;
}

DeviceMemory::DeviceMemory(int device) : device_(device) {
  constexpr int kReadWrite = PROT_READ | PROT_WRITE;
  shadow_.bytes = static_cast<std::byte*>(map_pages(kArenaBytes, kReadWrite));
  shadow_.cells = static_cast<Cell*>(map_pages(kArenaBytes / 2 * sizeof(Cell), kReadWrite));
  // The first bytes are forbidden too.
  blocks_[0] = {kAlignment, 0, State::kReserved, 0};
  blocks_[kAlignment] = {kArenaBytes - kAlignment, 0, State::kFree, 0};
}

DeviceMemory::~DeviceMemory() {
  munmap(shadow_.bytes, kArenaBytes);
  munmap(shadow_.cells, kArenaBytes / 2 * sizeof(Cell));
}

std::size_t DeviceMemory::offset_of(const void* address) const {
  return static_cast<std::size_t>(static_cast<const std::byte*>(address) - arena(device_));
}

std::map<std::size_t, DeviceMemory::Block>::const_iterator DeviceMemory::block_at(
    std::size_t offset) const {
  return std::prev(blocks_.upper_bound(offset));
}

std::byte* DeviceMemory::reserve(std::size_t bytes, std::uint32_t by, const Clock& before,
                                 bool reuse) {
  const std::size_t room = room_for(bytes);
  if (room < bytes) return nullptr;
  auto found = blocks_.end();
  for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
    const Block& b = block->second;
    if (b.state == State::kFree && b.room >= room && found == blocks_.end()) found = block;
    if (reuse && b.state == State::kRetired && b.room == room &&
        before[shadow_.slot_of[b.by]] >= b.by) {
      found = block;
      break;
    }
  }
  if (found == blocks_.end()) return nullptr;
  Block& block = found->second;
  if (block.room > room) {
    blocks_[found->first + room] = {block.room - room, 0, State::kFree, 0};
    block.room = room;
  }
  block.bytes = bytes;
  block.state = State::kReserved;
  block.by = by;
  ++live_;
  return arena(device_) + found->first;
}

void DeviceMemory::open(const std::byte* address, std::size_t bytes, std::uint32_t by) {
  const std::size_t offset = offset_of(address);
  Block& block = blocks_.at(offset);
  if (block.state == State::kReserved && block.by == by) block.state = State::kLive;
  std::memset(shadow_.bytes + offset, kPoison, bytes);
  Cell cell;
  cell.writer = by;
  cell.state = Cell::kAllocated;
  std::fill_n(shadow_.cells + offset / 2, bytes / 2, cell);
  if (bytes % 2 == 1) {
    cell.state = 1;
    shadow_.cells[(offset + bytes) / 2] = cell;
  }
}

std::optional<std::size_t> DeviceMemory::retire(const void* address, std::uint32_t by) {
  if (device_of(address) != device_) return {};
  const auto block = blocks_.find(offset_of(address));
  if (block == blocks_.end() || block->first == 0) return {};
  if (block->second.state != State::kLive && block->second.state != State::kReserved) return {};
  block->second.state = State::kRetired;
  block->second.by = by;
  --live_;
  return block->second.bytes;
}

void DeviceMemory::close(const std::byte* address, std::size_t bytes, std::uint32_t by) {
  const std::size_t offset = offset_of(address);
  std::memset(shadow_.bytes + offset, kPoison, bytes);
  std::fill_n(shadow_.cells + offset / 2, (bytes + 1) / 2, Cell{});
  graves_.push_back({offset, bytes, by});
  if (graves_.size() > kGraves) graves_.pop_front();
  const auto block = blocks_.find(offset);
  if (block->second.state != State::kRetired || block->second.by != by) return;  // taken again
  block->second.state = State::kFree;
  merge(block);
}

// With its free neighbours.
void DeviceMemory::merge(std::map<std::size_t, Block>::iterator block) {
  const auto next = std::next(block);
  if (next != blocks_.end() && next->second.state == State::kFree) {
    block->second.room += next->second.room;
    blocks_.erase(next);
  }
  const auto previous = std::prev(block);
  if (previous->second.state == State::kFree) {
    previous->second.room += block->second.room;
    blocks_.erase(block);
  }
}

bool DeviceMemory::is_from_pool(const void* address) const {
  const Block& block = block_at(offset_of(address))->second;
  return block.state != State::kFree && block.by != 0;
}

bool DeviceMemory::holds(const void* address, std::size_t bytes) const {
  if (device_of(address) != device_) return false;
  const std::size_t offset = offset_of(address);
  const auto block = block_at(offset);
  return block->second.state == State::kLive &&
         offset + bytes <= block->first + block->second.bytes;
}

std::byte* DeviceMemory::bytes_of(const void* address) const {
  return shadow_.bytes + offset_of(address);
}

void DeviceMemory::written_by_host(const void* address, std::size_t bytes) {
  const std::size_t offset = offset_of(address);
  for (std::size_t i = offset; i < offset + bytes; ++i) {
    Cell& cell = shadow_.cells[i / 2];
    cell = {0, 0, 0,
            (cell.state & (Cell::kAllocated | Cell::kInitialised)) | (std::uint32_t{4} << (i % 2))};
  }
}

std::size_t DeviceMemory::free_bytes() const {
  std::size_t bytes = 0;
  for (const auto& [offset, block] : blocks_) {
    if (block.state == State::kFree) bytes += block.room;
  }
  return bytes;
}

std::string DeviceMemory::locate(const void* address) const {
  const std::size_t offset = offset_of(address);
  for (auto grave = graves_.rbegin(); grave != graves_.rend(); ++grave) {
    const bool inside = offset >= grave->offset && offset < grave->offset + grave->bytes;
    const auto block = block_at(offset);
    if (inside && (block->second.state == State::kFree || block->second.state == State::kRetired)) {
      return fmt::format("offset {} of what was an allocation of {} bytes", offset - grave->offset,
                         grave->bytes);
    }
  }
  auto block = block_at(offset);
  while (block != blocks_.begin() && block->second.bytes == 0) --block;
  const auto is_allocation = [](const Block& b) {
    return b.state == State::kLive || b.state == State::kReserved || b.state == State::kRetired;
  };
  const std::size_t end = block->first + block->second.bytes;
  const auto after = std::find_if(
      blocks_.upper_bound(offset), blocks_.end(),
      [&](const auto& entry) { return entry.second.bytes > 0 && is_allocation(entry.second); });
  const bool known = block->second.bytes > 0 && is_allocation(block->second);
  if (known && offset < end) {
    return fmt::format("offset {} of an allocation of {} bytes", offset - block->first,
                       block->second.bytes);
  }
  if (known && (after == blocks_.end() || offset - end < after->first - offset)) {
    return fmt::format("{} bytes behind the end of an allocation of {} bytes", offset - end,
                       block->second.bytes);
  }
  if (after != blocks_.end()) {
    return fmt::format("{} bytes before an allocation of {} bytes", after->first - offset,
                       after->second.bytes);
  }
  return "far from every allocation";
}

std::optional<std::uint32_t> DeviceMemory::freed_by(const void* address) const {
  const std::size_t offset = offset_of(address);
  for (auto grave = graves_.rbegin(); grave != graves_.rend(); ++grave) {
    if (offset >= grave->offset && offset < grave->offset + grave->bytes) return grave->by;
  }
  return {};
}

std::optional<std::uint32_t> DeviceMemory::unopened(const void* address) const {
  const std::size_t offset = offset_of(address);
  const auto block = block_at(offset);
  const bool inside = offset < block->first + block->second.bytes;
  if (!inside || block->second.state != State::kReserved || block->second.by == 0) return {};
  return block->second.by;
}

}  // namespace sp::emulator
