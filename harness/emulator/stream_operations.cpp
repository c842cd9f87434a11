// SPDX-License-Identifier: Apache-2.0
#include "harness/emulator/stream_operations.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace sp::emulator {

bool RecordOperation::advance(const Accessor&) {
  using Milliseconds = std::chrono::duration<double, std::milli>;
  *milliseconds_ = Milliseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
  return true;
}

bool AllocateOperation::advance(const Accessor& who) {
  settle(who.operation);
  return true;
}

std::string AllocateOperation::describe() const {
  return fmt::format("allocation of {} bytes", bytes_);
}

// All that was done with the block must come before.
bool FreeOperation::advance(const Accessor& who) {
  touch(address_, bytes_, 1, Access::kWrite, who);
  settle(who.operation);
  return true;
}

std::string FreeOperation::describe() const { return fmt::format("free of {} bytes", bytes_); }

CopyOperation::CopyOperation(std::byte* to, const std::byte* from, std::size_t bytes,
                             bool from_pageable, Accessor there)
    : to_(to), from_(from), bytes_(bytes), there_(there) {
  if (from_pageable) taken_.assign(from, from + bytes);
}

bool CopyOperation::advance(const Accessor& who) {
  const auto on = [&](const std::byte* address) {
    return device_of(address) == there_.device ? there_ : who;
  };
  const std::byte* from = from_;
  if (!taken_.empty()) {
    from = taken_.data();
  } else if (device_of(from_) >= 0) {
    from = touch(from_, bytes_, 1, Access::kRead, on(from_));
  }
  std::byte* to = device_of(to_) >= 0 ? touch(to_, bytes_, 1, Access::kWrite, on(to_)) : to_;
  std::memcpy(to, from, bytes_);
  return true;
}

std::string CopyOperation::describe() const {
  const int to = device_of(to_), from = device_of(from_);
  if (there_.device >= 0) {
    return fmt::format("copy of {} bytes from device {} to device {}", bytes_, from, to);
  }
  return fmt::format("copy of {} bytes {}", bytes_,
                     to < 0     ? "to the host"
                     : from < 0 ? "from the host"
                                : "on the device");
}

bool FillOperation::advance(const Accessor& who) {
  const std::size_t bytes =
      sabotaged("memset_short") ? bytes_ - std::min<std::size_t>(bytes_, 16) : bytes_;
  if (bytes == 0) return true;
  std::memset(touch(address_, bytes, 1, Access::kWrite, who), value_, bytes);
  return true;
}

std::string FillOperation::describe() const { return fmt::format("memset of {} bytes", bytes_); }

}  // namespace sp::emulator
