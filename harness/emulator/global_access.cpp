// Global memory as lanes touch it.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "harness/emulator/block.hpp"

namespace sp::emulator {
namespace {

std::byte* access(const void* address, int bytes, Access kind) {
  const Unseen unseen;
  const Lane& lane = *current_lane;
  Block& block = *lane.block;
  if (block.counter) [[unlikely]]
    block.counter->global(lane.thread, address, bytes);
  const auto size = static_cast<std::size_t>(bytes);
  return touch(address, size, size, kind, block.who);
}

template <class T>
void add(T* address, T value) {
  std::byte* const bytes = access(address, sizeof(T), Access::kAtomic);
  const Unseen unseen;
  T sum;
  std::memcpy(&sum, bytes, sizeof(T));
  sum += value;
  std::memcpy(bytes, &sum, sizeof(T));
}

}  // namespace

const std::byte* read_global(const void* address, int bytes) {
  return access(address, bytes, Access::kRead);
}
std::byte* write_global(void* address, int bytes) { return access(address, bytes, Access::kWrite); }
void add_global(float* address, float value) { add(address, value); }
void add_global(int* address, int value) { add(address, value); }

}  // namespace sp::emulator
