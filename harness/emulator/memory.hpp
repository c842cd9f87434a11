// One device's memory: addresses that the host cannot touch, their backing store, and a shadow.
//
// Addresses   Every device has 2^30 of them, reserved without access. Their bytes lie in a second
//             mapping, their shadow in a third; both at the same offset, so a check is an addition
//             and a look.
// Blocks      Allocations are 256-byte aligned, and at least 256 forbidden bytes lie between two.
// Shadow      One cell per 2 bytes, the smallest element that kernels share between threads: who
//             wrote it last, and who read it since. 8 bytes of shadow per byte.
// Threads     Guarded by the device's lock.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "harness/emulator/machine.hpp"

namespace sp::emulator {

constexpr int kMaxDevices = 64;
constexpr int kArenaBits = 30;
constexpr std::size_t kArenaBytes = std::size_t{1} << kArenaBits;
constexpr int kStreamSlots = 64;

// By slot of a stream: the last operation there that comes before something.
using Clock = std::array<std::uint32_t, kStreamSlots>;

// Who touched 2 bytes. Operations are numbers, 0: the host, or nobody.
struct Cell {
  std::uint32_t writer = 0;
  std::uint32_t reader = 0;        // the latest, since the last write
  std::uint32_t other_reader = 0;  // the latest that is not ordered before `reader`
  // Bits 0-1: which bytes are allocated; 2-3: which are initialised; 4: written atomically.
  // From bit 6 on the block of the latest operation; all ones: several blocks.
  std::uint32_t state = 0;

  static constexpr std::uint32_t kAllocated = 3, kInitialised = 12, kAtomic = 16;
  static constexpr int kBlockShift = 6;
  static constexpr std::uint32_t kManyBlocks = ~std::uint32_t{0} << kBlockShift;
};

// The operation in hand, and what comes before it.
struct Shadow {
  Cell* cells = nullptr;
  std::byte* bytes = nullptr;
  std::uint32_t operation = 0;
  const std::uint32_t* clock = nullptr;
  const std::uint8_t* slot_of = nullptr;  // by operation
};

class DeviceMemory {
 public:
  explicit DeviceMemory(int device);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Reserves a block for operation `by` (0: the host's at once). May take one whose free is posted
  // but not executed, if `before` holds that free and `reuse`. Null: none is large enough.
  std::byte* reserve(std::size_t bytes, std::uint32_t by, const Clock& before, bool reuse);
  // When its allocation is executed: readable poison, 0xff.
  void open(const std::byte* address, std::size_t bytes, std::uint32_t by);

  // Posts the free of the allocation that begins there; its size, or nothing if there is none.
  std::optional<std::size_t> retire(const void* address, std::uint32_t by);
  // When its free is executed: poisons and forbids.
  void close(const std::byte* address, std::size_t bytes, std::uint32_t by);

  // Whether it belongs to what a stream has allocated.
  bool is_from_pool(const void* address) const;
  // Whether all bytes belong to one live allocation.
  bool holds(const void* address, std::size_t bytes) const;
  std::byte* bytes_of(const void* address) const;
  void written_by_host(const void* address, std::size_t bytes);
  int live() const { return live_; }
  std::size_t free_bytes() const;

  // "offset 40 of an allocation of 512 bytes", "4 bytes behind an allocation of ..."
  std::string locate(const void* address) const;
  // Freed, and by which operation.
  std::optional<std::uint32_t> freed_by(const void* address) const;
  // Allocated by an operation that has not been executed.
  std::optional<std::uint32_t> unopened(const void* address) const;

  Shadow& shadow() { return shadow_; }

 private:
  enum class State : std::uint8_t { kFree, kReserved, kLive, kRetired };
  struct Block {
    std::size_t room = 0;   // from its offset to the next block
    std::size_t bytes = 0;  // asked for
    State state = State::kFree;
    std::uint32_t by = 0;  // the operation that allocates, or frees
  };
  struct Grave {
    std::size_t offset = 0, bytes = 0;
    std::uint32_t by = 0;
  };
  std::size_t offset_of(const void* address) const;
  std::map<std::size_t, Block>::const_iterator block_at(std::size_t offset) const;
  void merge(std::map<std::size_t, Block>::iterator block);

  int device_;
  int live_ = 0;
  Shadow shadow_;
  std::map<std::size_t, Block> blocks_;  // by offset; they tile the arena
  std::deque<Grave> graves_;             // the latest frees
};

// The first address of a device.
std::byte* arena(int device);
// The device whose address this is, or -1.
int device_of(const void* address);
// From now on the host's access to any device address ends the program, with one line that says
// which.
void guard_arenas();
// Makes the memory of a device known to touch().
void install(int device, DeviceMemory* memory);

}  // namespace sp::emulator
