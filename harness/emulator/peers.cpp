// Devices that reach each other's memory: copies between them, and who may.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <bit>

#include "harness/emulator/hosts.hpp"
#include "harness/emulator/streams.hpp"

namespace sp::emulator {
namespace {

bool reaches(int device, int peer) { return device != peer && settings().peers; }

Device& owner_of(cudaMemPool_t pool) {
  const auto ordinal = static_cast<int>(reinterpret_cast<std::uintptr_t>(pool)) - 1;
  return device(exists(ordinal) ? ordinal : current_device());
}

}  // namespace

// A slot whose last copy comes before this one, else a new one: so no two copies look ordered that
// are not. From the top, streams have theirs from the bottom.
Visit Device::admit(Past& past, const std::string& what) {
  Clock& before = past[ordinal_];
  join(before, host_);
  sweep();
  int slot = kStreamSlots - 1;
  for (; slot > 0; --slot) {
    const auto s = static_cast<std::size_t>(slot);
    if ((visited_slots_ >> slot & 1) != 0 && before[s] >= visited_[s]) break;
  }
  if (slot == 0) {
    slot = kStreamSlots - 1 - std::countl_one(slots_in_use_);
    if (slot < 0) {
      throw ApiError(cudaErrorMemoryAllocation,
                     fmt::format("more than {} streams, and copies that other devices run, that "
                                 "the host has not waited for",
                                 kStreamSlots - 1),
                     FaultKind::kResources);
    }
    visited_slots_ |= std::uint64_t{1} << slot;
    slots_in_use_ |= std::uint64_t{1} << slot;
  }
  const std::uint32_t number = new_number(slot, what, /*visits=*/true);
  visited_[static_cast<std::size_t>(slot)] = before[static_cast<std::size_t>(slot)] = number;
  return {ordinal_, slot, number};
}

Past Device::past_for_others(const Event& event) {
  watched_ = true;
  return event.past;
}

void Device::released() {
  if (missed_.load(std::memory_order_relaxed) && missed_.exchange(false)) notify_all_hosts();
}

void Device::share_pool_with(int device, bool share) {
  const std::uint64_t bit = std::uint64_t{1} << device;
  share ? pool_shared_with_ |= bit : pool_shared_with_ &= ~bit;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int ordinal, int peer) {
  return on_device("cudaDeviceCanAccessPeer", [&](Device&, auto&) {
    for (const int each : {ordinal, peer}) {
      if (!exists(each)) throw ApiError(cudaErrorInvalidDevice, fmt::format("no device {}", each));
    }
    *can = reaches(ordinal, peer) ? 1 : 0;
    return cudaSuccess;
  });
}

cudaError_t cudaMemPoolSetAccess(cudaMemPool_t pool, const cudaMemAccessDesc* list,
                                 std::size_t count) {
  return on_device(owner_of(pool), "cudaMemPoolSetAccess", [&](Device& own, auto&) {
    if (pool != pool_of(own.ordinal())) throw ApiError(cudaErrorInvalidValue, "no such pool");
    for (const cudaMemAccessDesc* each = list; each != list + count; ++each) {
      const int other = each->location.id;
      if (each->location.type != cudaMemLocationTypeDevice || !exists(other)) {
        throw ApiError(cudaErrorInvalidDevice, fmt::format("no device {}", other));
      }
      if (each->flags != cudaMemAccessFlagsProtNone &&
          each->flags != cudaMemAccessFlagsProtReadWrite) {
        throw ApiError(cudaErrorInvalidValue, "access that is neither none nor read and write");
      }
      const bool share = each->flags == cudaMemAccessFlagsProtReadWrite;
      if (other == own.ordinal() ? !share : share && !reaches(other, own.ordinal())) {
        throw ApiError(cudaErrorInvalidDevice,
                       other == own.ordinal() ? "a device keeps the access to its own pool"
                                              : fmt::format("device {} cannot access device {}",
                                                            other, own.ordinal()));
      }
      own.share_pool_with(other, share);
    }
    return cudaSuccess;
  });
}

}  // namespace sp::emulator
