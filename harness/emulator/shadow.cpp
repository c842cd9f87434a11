// The check of every access: allocated, aligned, initialised, and ordered with all others.
//
// An operation comes before another if the other's clock holds it. So a missing event is found
// whatever order was executed, from either side. Readers need one cell each only while they are
// unordered: of three or more such streams one may go unseen.
// Not instrumented by ThreadSanitizer: lanes are threads to it, and they all meet here.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/emulator/memory.hpp"
#include "harness/emulator/streams.hpp"

#define SP_UNSEEN __attribute__((no_sanitize("thread")))

namespace sp::emulator {
namespace {

Shadow* shadows[kMaxDevices];  // of devices in use
DeviceMemory* memories[kMaxDevices];
std::byte* first_address = nullptr;  // arena(0)

const char* verb(Access access) {
  return access == Access::kRead ? "read" : access == Access::kWrite ? "write" : "atomic addition";
}

enum class Finding : std::uint8_t { kNone, kBlockRace, kWriter, kReader, kOtherReader };

struct Attempt {
  const std::byte* address;
  std::size_t bytes, alignment;
  Access access;
  Accessor who;

  std::string story() const {
    return fmt::format("{} of {} bytes at {}", verb(access), bytes,
                       memories[who.device]->locate(address));
  }
};

[[gnu::cold, noreturn]] void refuse_address(const Attempt& a) {
  const int device = device_of(a.address);
  if (device < 0 || device != a.who.device || memories[device] == nullptr) {
    throw Fault(FaultKind::kOutOfBounds,
                fmt::format("{} of {} bytes at {}, which is no address of this device ({})",
                            verb(a.access), a.bytes, fmt::ptr(a.address),
                            device < 0 ? "the host's, or none" : fmt::format("device {}", device)));
  }
  if (reinterpret_cast<std::uintptr_t>(a.address) % a.alignment != 0) {
    throw Fault(FaultKind::kMisaligned,
                fmt::format("{}: not a multiple of {}", a.story(), a.alignment));
  }
  if (a.who.operation != memories[device]->shadow().operation) {
    throw Fault(FaultKind::kApi, "memory touched outside the operation in hand");
  }
  throw Fault(FaultKind::kOutOfBounds, a.story());
}

// Some byte of the access is not allocated, or not initialised.
[[gnu::cold, noreturn]] void refuse_bytes(const Attempt& a) {
  const DeviceMemory& memory = *memories[a.who.device];
  const Shadow& shadow = *shadows[a.who.device];
  Attempt bad = a;
  for (std::size_t i = 0; i < a.bytes; ++i) {
    bad.address = a.address + i;
    const auto offset = static_cast<std::size_t>(bad.address - arena(a.who.device));
    const std::uint32_t state = shadow.cells[offset / 2].state >> offset % 2;
    if ((state & 1) == 0) {
      const std::string where =
          i == 0 ? a.story()
                 : fmt::format("{}, byte {}: {}", a.story(), i, memory.locate(bad.address));
      if (const auto by = memory.unopened(bad.address)) {
        throw Fault(FaultKind::kOrder,
                    fmt::format("{}: allocated by {}, which is not ordered before", where,
                                name_operation(a.who.device, *by)));
      }
      if (const auto by = memory.freed_by(bad.address)) {
        throw Fault(FaultKind::kUseAfterFree,
                    fmt::format("{}: freed by {}", where, name_operation(a.who.device, *by)));
      }
      throw Fault(FaultKind::kOutOfBounds, where);
    }
    if (a.access != Access::kWrite && (state & 4) == 0) {
      throw Fault(FaultKind::kUninitialised,
                  fmt::format("{}: byte {} was never written", a.story(), i));
    }
  }
  throw Fault(FaultKind::kOutOfBounds, a.story());
}

[[gnu::cold, noreturn]] void refuse_order(const Attempt& a, const Cell& cell, Finding finding) {
  if (finding == Finding::kBlockRace) {
    const std::uint32_t block = cell.state >> Cell::kBlockShift;
    const bool many = block == Cell::kManyBlocks >> Cell::kBlockShift;
    throw Fault(FaultKind::kBlockRace,
                fmt::format("{}: {} {} it in the same launch", a.story(),
                            many ? "other blocks" : fmt::format("block number {}", block - 1),
                            cell.reader == a.who.operation ? "read" : "wrote"));
  }
  const std::uint32_t other = finding == Finding::kWriter   ? cell.writer
                              : finding == Finding::kReader ? cell.reader
                                                            : cell.other_reader;
  throw Fault(FaultKind::kOrder,
              fmt::format("{}: {} by {}, with no event or synchronisation between", a.story(),
                          finding == Finding::kWriter ? "written" : "read",
                          name_operation(a.who.device, other)));
}

// What it means that the operation in hand reads or writes one cell, and marks it.
struct Marker {
  const Shadow& shadow;
  std::uint32_t block;  // shifted

  SP_UNSEEN bool ordered(std::uint32_t operation) const {
    return shadow.clock[shadow.slot_of[operation]] >= operation;  // 0 is before everything
  }
  SP_UNSEEN static std::uint32_t block_of(const Cell& cell) {
    return cell.state & Cell::kManyBlocks;
  }
  SP_UNSEEN static void set_block(Cell& cell, std::uint32_t block) {
    cell.state = (cell.state & ~Cell::kManyBlocks) | block;
  }

  SP_UNSEEN Finding read(Cell& cell) const {
    if (cell.writer == shadow.operation) return Finding::kBlockRace;  // its own were let pass
    if (!ordered(cell.writer)) return Finding::kWriter;
    if (cell.reader == shadow.operation) {
      set_block(cell, Cell::kManyBlocks);
      return Finding::kNone;
    }
    if (!ordered(cell.reader)) cell.other_reader = cell.reader;
    cell.reader = shadow.operation;
    set_block(cell, block);
    return Finding::kNone;
  }

  SP_UNSEEN Finding write(Cell& cell, bool atomic) const {
    const bool again = cell.writer == shadow.operation;
    const bool read_now = cell.reader == shadow.operation;
    const bool foreign = block_of(cell) != block;
    const bool add_to_sum = again && atomic && (cell.state & Cell::kAtomic) != 0;
    if (read_now && foreign) return Finding::kBlockRace;
    if (again && foreign) {
      if (!add_to_sum) return Finding::kBlockRace;
      set_block(cell, Cell::kManyBlocks);
      return Finding::kNone;
    }
    if (!ordered(cell.writer)) return Finding::kWriter;
    if (!ordered(cell.reader)) return Finding::kReader;
    if (!ordered(cell.other_reader)) return Finding::kOtherReader;
    cell.writer = shadow.operation;
    cell.reader = cell.other_reader = 0;
    const bool stays_atomic = atomic && (!again || add_to_sum);
    cell.state = (cell.state & (Cell::kAllocated | Cell::kInitialised)) | block |
                 (stays_atomic ? Cell::kAtomic : 0);
    return Finding::kNone;
  }
};

// Which of a cell's two bytes lie in [begin, end).
constexpr std::uint32_t bytes_in_cell(std::size_t cell, std::size_t begin, std::size_t end) {
  return (2 * cell >= begin ? 1u : 0u) | (2 * cell + 1 < end ? 2u : 0u);
}

}  // namespace

void install(int device, DeviceMemory* memory) {
  first_address = arena(0);
  memories[device] = memory;
  shadows[device] = memory == nullptr ? nullptr : &memory->shadow();
}

SP_UNSEEN std::byte* touch(const void* device_address, std::size_t bytes, std::size_t alignment,
                           Access access, const Accessor& who) {
  const auto* address = static_cast<const std::byte*>(device_address);
  const Attempt attempt{address, bytes, alignment, access, who};
  const std::size_t offset =
      reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(first_address);
  const std::size_t begin = offset & (kArenaBytes - 1);
  const Shadow* shadow = shadows[who.device];
  if (offset >> kArenaBits != static_cast<std::size_t>(who.device) || shadow == nullptr ||
      (offset & (alignment - 1)) != 0 || who.operation != shadow->operation ||
      begin + bytes > kArenaBytes) {
    refuse_address(attempt);
  }
  const std::uint32_t block = who.block << Cell::kBlockShift;
  const Marker marker{*shadow, block};
  const std::uint32_t operation = who.operation;
  const std::size_t end = begin + bytes;
  for (std::size_t i = begin / 2; 2 * i < end; ++i) {
    Cell& cell = shadow->cells[i];
    const std::uint32_t part = bytes_in_cell(i, begin, end);
    const std::uint32_t needed = access == Access::kWrite ? part : part | part << 2;
    if ((cell.state & needed) != needed) refuse_bytes(attempt);
    const bool ours = (cell.state & Cell::kManyBlocks) == block;
    Finding finding = Finding::kNone;
    if (access == Access::kRead) {
      if (ours && (cell.writer == operation || cell.reader == operation)) {
        cell.state &= ~Cell::kAtomic;  // the sum was looked at: no other block may add now
        continue;
      }
      finding = marker.read(cell);
    } else {
      finding = marker.write(cell, access == Access::kAtomic);
      cell.state |= part << 2;
    }
    if (finding != Finding::kNone) refuse_order(attempt, cell, finding);
  }
  return shadow->bytes + begin;
}

}  // namespace sp::emulator
