// A block's shared memory: its bytes, and for every 2 bytes who wrote and read them last.
//
// Stamps      A stamp names an access by thread and interval, the time between two barriers. Every
//             barrier opens a new interval, for its warp or for all; their numbers only grow, over
//             barriers and blocks: what came before the block's last barrier has a smaller number.
// Race        Two accesses of different threads, one of them a write, in the same interval of a
//             warp or in different warps since the last block_barrier().
// Two readers The last ones, of different warps if there are such: enough to find every race of a
//             write with earlier reads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace sp::emulator {

struct Lane;

// Interval, then 10 bits of thread. Below 2^31, so that a sign tells the order of two stamps: hosts
// compare signs in vectors of any width, unsigned numbers only in some.
using Stamp = std::uint32_t;
constexpr int kThreadBits = 10;

// Copies under way of one lane, in the order of issue.
struct AsyncCopy {
  std::size_t offset = 0;           // in shared memory
  const std::byte* from = nullptr;  // null: zeros
  bool landed = false;              // the bytes are there already
  std::uint32_t group = 0;
};
struct AsyncCopies {
  std::vector<AsyncCopy> pending;
  std::uint32_t group = 0;  // the open one
};

class SharedMemory {
 public:
  SharedMemory();

  // What addresses of device code are relative to.
  std::byte* base() const { return base_; }
  std::size_t offset_of(const void* address) const {
    return reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(base_);
  }

  // Poisons `bytes`; the intervals of the warps follow from first_interval().
  void begin_block(std::size_t bytes, int warps);
  // All that happened so far is ordered before what follows.
  void order_block(int warps);
  Stamp first_interval() const { return first_ >> kThreadBits; }
  Stamp new_interval();  // for a warp
  // Forgets everything: the block was abandoned.
  void clear();

  template <int kBytes>
  std::byte* read(const void* address, const Lane& lane) {
    const std::size_t offset = locate(address, kBytes, lane, "read");
    check_read<kBytes / kCell>(offset / kCell, lane);
    return data_.get() + offset;
  }
  template <int kBytes>
  std::byte* write(const void* address, const Lane& lane) {
    const std::size_t offset = locate(address, kBytes, lane, "write");
    check_write<kBytes / kCell>(offset / kCell, lane, stamp(lane));
    return data_.get() + offset;
  }

  // 16 bytes that are touched by nobody between the two; returns their offset.
  std::size_t begin_copy(const void* address, const Lane& lane);
  void end_copy(std::size_t offset, const Lane& lane);
  std::byte* bytes_at(std::size_t offset) { return data_.get() + offset; }

 private:
  static constexpr int kCell = 2;
  static constexpr Stamp kInFlight = ~Stamp{0} >> 1;
  static constexpr Stamp kMostIntervals = Stamp{1} << (31 - kThreadBits);

  std::size_t locate(const void* address, std::size_t bytes, const Lane& lane,
                     const char* what) const {
    const std::size_t offset = offset_of(address);
    if (offset >= bytes_ || bytes_ - offset < bytes || offset % bytes != 0) [[unlikely]] {
      refuse(offset, bytes, lane, what);
    }
    return offset;
  }
  [[noreturn]] void refuse(std::size_t offset, std::size_t bytes, const Lane& lane,
                           const char* what) const;
  template <int kCells>
  void check_read(std::size_t cell, const Lane& lane);
  template <int kCells>
  void check_write(std::size_t cell, const Lane& lane, Stamp written);
  static Stamp stamp(const Lane& lane);
  bool ordered(Stamp earlier, Stamp now) const;
  Stamp keep(Stamp last, Stamp other, Stamp now) const;
  void explain_read(std::size_t cell, int cells, const Lane& lane) const;
  void explain_write(std::size_t cell, int cells, const Lane& lane) const;
  [[noreturn]] void race(std::size_t cell, const char* what, const char* earlier_what,
                         Stamp earlier, const Lane& lane) const;

  std::byte* base_;
  std::size_t bytes_ = 0;  // of this block
  std::size_t capacity_ = 0;
  std::unique_ptr<std::byte[]> data_;
  std::vector<Stamp> writer_, reader_, other_reader_;  // per cell
  Stamp floor_ = 0;                                    // stamps below are of earlier blocks
  Stamp first_ = 0;  // stamps below are ordered before everything now
  Stamp next_interval_ = 1;
};

}  // namespace sp::emulator
