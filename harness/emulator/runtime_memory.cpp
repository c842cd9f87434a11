// Allocations, copies and fills.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

#include "harness/emulator/hosts.hpp"
#include "harness/emulator/stream_operations.hpp"
#include "harness/emulator/streams.hpp"

namespace sp::emulator {
namespace {

using Lock = std::unique_lock<std::mutex>;

enum class Place : std::uint8_t { kPageable, kPinned, kDevice };

Place place_of(Device& own, const void* address, std::size_t bytes) {
  if (device_of(address) >= 0) return Place::kDevice;
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  auto range = own.pinned.upper_bound(begin);
  if (range == own.pinned.begin()) return Place::kPageable;
  --range;
  return begin + bytes <= range->first + range->second ? Place::kPinned : Place::kPageable;
}

const char* direction(cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return "cudaMemcpyHostToHost";
    case cudaMemcpyHostToDevice:
      return "cudaMemcpyHostToDevice";
    case cudaMemcpyDeviceToHost:
      return "cudaMemcpyDeviceToHost";
    case cudaMemcpyDeviceToDevice:
      return "cudaMemcpyDeviceToDevice";
    case cudaMemcpyDefault:
      return "cudaMemcpyDefault";
  }
  return "no copy direction";
}

void check_copy(const std::byte* to, const std::byte* from, std::size_t bytes,
                cudaMemcpyKind kind) {
  const bool to_device = device_of(to) >= 0, from_device = device_of(from) >= 0;
  const int actual = (to_device ? 1 : 0) | (from_device ? 2 : 0);
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) {
    throw ApiError(cudaErrorInvalidMemcpyDirection, direction(kind));
  }
  if (kind != cudaMemcpyDefault && actual != static_cast<int>(kind)) {
    throw ApiError(
        cudaErrorInvalidValue,
        fmt::format("{}, but it goes to {} memory and comes from {} memory", direction(kind),
                    to_device ? "device" : "host", from_device ? "device" : "host"));
  }
  if (to < from + bytes && from < to + bytes) {
    throw ApiError(cudaErrorInvalidValue, "source and destination overlap");
  }
}

// The device of the side that is not on this one, if the other side is.
Device* other_device(const Device& own, const void* to, const void* from) {
  const int a = device_of(to), b = device_of(from);
  const int other = a == own.ordinal() ? b : b == own.ordinal() ? a : -1;
  return exists(other) && other != own.ordinal() ? &device(other) : nullptr;
}

// Both locks are held: the copy gets a number on both devices.
void copy_between(Device& own, Device& other, Stream& stream, std::byte* to, const std::byte* from,
                  std::size_t bytes) {
  if (stream.slot == 0) {
    throw ApiError(cudaErrorNotSupported,
                   "a copy between devices in the default stream is not modelled");
  }
  const std::byte* there = device_of(to) == other.ordinal() ? to : from;
  if (other.memory().is_from_pool(there) && !other.shares_pool_with(own.ordinal())) {
    throw ApiError(cudaErrorInvalidValue,
                   fmt::format("memory of the pool of device {}, to which cudaMemPoolSetAccess "
                               "gave device {} no access",
                               other.ordinal(), own.ordinal()));
  }
  const auto between = [&](const Visit& visit) {
    return std::make_unique<CopyOperation>(to, from, bytes, /*from_pageable=*/false,
                                           Accessor{visit.number, 0, other.ordinal()});
  };
  const Visit visit = other.admit(stream.past, between({})->describe());
  own.post(stream, between(visit), visit);
}

cudaError_t copy(Device& own, Lock& lock, void* target, const void* source, std::size_t bytes,
                 cudaMemcpyKind kind, cudaStream_t handle, bool wait) {
  Device* other = other_device(own, target, source);
  Lock there;
  if (other != nullptr) {
    lock.unlock();
    there = Lock(other->mutex, std::defer_lock);
    std::lock(lock, there);
    if (own.error() != cudaSuccess) return own.error();
  }
  Stream& stream = stream_of(own, handle);
  if (bytes == 0) return cudaSuccess;
  auto* to = static_cast<std::byte*>(target);
  const auto* from = static_cast<const std::byte*>(source);
  check_copy(to, from, bytes, kind);
  if (other != nullptr) {
    copy_between(own, *other, stream, to, from, bytes);
    return cudaSuccess;
  }
  const Place target_place = place_of(own, to, bytes), source_place = place_of(own, from, bytes);
  own.post(stream, std::make_unique<CopyOperation>(to, from, bytes,
                                                   source_place == Place::kPageable && !wait));
  const bool on_device = target_place == Place::kDevice && source_place == Place::kDevice;
  if (on_device && sabotaged("copy_before_post")) own.run_early(stream);
  if (!wait && target_place != Place::kPageable) return cudaSuccess;
  return wait_for(own, lock, Past(stream.past));
}

cudaError_t fill(Device& own, void* address, int value, std::size_t bytes, cudaStream_t handle) {
  Stream& stream = stream_of(own, handle);
  if (bytes == 0) return cudaSuccess;
  if (device_of(address) < 0) {
    throw ApiError(cudaErrorInvalidValue, "not an address of a device");
  }
  own.post(stream, std::make_unique<FillOperation>(static_cast<std::byte*>(address), value, bytes));
  return cudaSuccess;
}

std::string why_not_free(Device& own, const void* address) {
  if (device_of(address) != own.ordinal()) return "not an address of this device";
  return fmt::format("no live allocation begins there: {}", own.memory().locate(address));
}

}  // namespace

cudaError_t cudaMalloc(void** address, std::size_t bytes) {
  return on_device("cudaMalloc", [&](Device& own, Lock&) {
    *address = nullptr;
    if (bytes == 0) return cudaSuccess;
    std::byte* block = own.memory().reserve(bytes, 0, own.host_clock(), /*reuse=*/false);
    if (block == nullptr) return cudaErrorMemoryAllocation;
    own.memory().open(block, bytes, 0);
    *address = block;
    return cudaSuccess;
  });
}

// Waits for the device, as its documentation says.
cudaError_t cudaFree(void* address) {
  return on_device(
      "cudaFree",
      [&](Device& own, Lock& lock) {
        const cudaError_t error = wait_for(own, lock, own.everything());
        if (address == nullptr) return error;
        const auto bytes = own.memory().retire(address, 0);
        if (!bytes) throw ApiError(cudaErrorInvalidValue, why_not_free(own, address));
        own.memory().close(static_cast<std::byte*>(address), *bytes, 0);
        return error;
      },
      /*releases=*/true);
}

cudaError_t cudaMallocAsync(void** address, std::size_t bytes, cudaStream_t handle) {
  return on_device("cudaMallocAsync", [&](Device& own, Lock&) {
    *address = nullptr;
    Stream& stream = stream_of(own, handle);
    if (bytes == 0) throw ApiError(cudaErrorInvalidValue, "zero bytes");
    Clock before = clock_of(stream.past, own.ordinal());
    join(before, own.host_clock());
    // Half of the time the same bytes again, so that what still uses them is found.
    std::byte* block =
        own.memory().reserve(bytes, own.next_number(), before, /*reuse=*/own.random() % 2 == 0);
    if (block == nullptr) return cudaErrorMemoryAllocation;
    own.post(stream, std::make_unique<AllocateOperation>(own.memory(), block, bytes));
    *address = block;
    return cudaSuccess;
  });
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t handle) {
  return on_device(
      "cudaFreeAsync",
      [&](Device& own, Lock&) {
        Stream& stream = stream_of(own, handle);
        const auto bytes = own.memory().retire(address, own.next_number());
        if (!bytes) throw ApiError(cudaErrorInvalidValue, why_not_free(own, address));
        auto* block = static_cast<std::byte*>(address);
        if (own.error() != cudaSuccess) {
          own.memory().close(block, *bytes, own.next_number());
          return cudaSuccess;
        }
        own.post(stream, std::make_unique<FreeOperation>(own.memory(), block, *bytes));
        if (sabotaged("free_early")) own.run_early(stream);
        return cudaSuccess;
      },
      /*releases=*/true);
}

cudaError_t cudaMallocHost(void** address, std::size_t bytes, unsigned flags) {
  return on_device("cudaMallocHost", [&](Device& own, Lock&) {
    *address = nullptr;
    if (flags != 0) throw ApiError(cudaErrorInvalidValue, fmt::format("unknown flags {}", flags));
    if (bytes == 0) return cudaSuccess;
    *address = std::malloc(bytes);
    if (*address == nullptr) return cudaErrorMemoryAllocation;
    own.pinned[reinterpret_cast<std::uintptr_t>(*address)] = bytes;
    return cudaSuccess;
  });
}

cudaError_t cudaFreeHost(void* address) {
  return on_device(
      "cudaFreeHost",
      [&](Device& own, Lock& lock) {
        if (address == nullptr) return cudaSuccess;
        const auto range = own.pinned.find(reinterpret_cast<std::uintptr_t>(address));
        if (range == own.pinned.end()) {
          throw ApiError(cudaErrorInvalidValue, "not from cudaMallocHost of this device");
        }
        const cudaError_t error = wait_for(own, lock, own.everything());
        own.pinned.erase(range);
        std::free(address);
        return error;
      },
      /*releases=*/true);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return on_device("cudaMemcpy", [&](Device& own, Lock& lock) {
    return copy(own, lock, to, from, bytes, kind, nullptr, /*wait=*/true);
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return on_device("cudaMemcpyAsync", [&](Device& own, Lock& lock) {
    return copy(own, lock, to, from, bytes, kind, stream, /*wait=*/false);
  });
}

cudaError_t cudaMemset(void* address, int value, std::size_t bytes) {
  return on_device("cudaMemset",
                   [&](Device& own, Lock&) { return fill(own, address, value, bytes, nullptr); });
}

cudaError_t cudaMemsetAsync(void* address, int value, std::size_t bytes, cudaStream_t stream) {
  return on_device("cudaMemsetAsync",
                   [&](Device& own, Lock&) { return fill(own, address, value, bytes, stream); });
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return on_device("cudaMemGetInfo", [&](Device& own, Lock&) {
    *free = own.memory().free_bytes();
    *total = kArenaBytes;
    return cudaSuccess;
  });
}

cudaMemPool_t pool_of(int ordinal) {
  return reinterpret_cast<cudaMemPool_t>(static_cast<std::uintptr_t>(ordinal) + 1);
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int ordinal) {
  return on_device("cudaDeviceGetDefaultMemPool", [&](Device&, Lock&) {
    if (!exists(ordinal)) {
      throw ApiError(cudaErrorInvalidDevice, fmt::format("no device {}", ordinal));
    }
    *pool = pool_of(ordinal);
    return cudaSuccess;
  });
}

// Memory is never given back, so any threshold is honoured.
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void*) {
  return on_device("cudaMemPoolSetAttribute", [&](Device&, Lock&) {
    if (pool == nullptr || attribute != cudaMemPoolAttrReleaseThreshold) {
      throw ApiError(cudaErrorInvalidValue, "no pool, or an attribute that is not modelled");
    }
    return cudaSuccess;
  });
}

std::byte* host_view(const void* address, std::int64_t bytes, bool writes) {
  const int ordinal = device_of(address);
  if (ordinal < 0) throw Fault(FaultKind::kApi, "host_view: not an address of a device");
  Device& own = device(ordinal);
  const Lock lock(own.mutex);
  const auto size = static_cast<std::size_t>(bytes);
  if (!own.idle()) throw Fault(FaultKind::kApi, "host_view: the device has work" + own.heads());
  if (!own.memory().holds(address, size)) {
    throw Fault(FaultKind::kOutOfBounds,
                fmt::format("host_view of {} bytes at {}", bytes, own.memory().locate(address)));
  }
  if (writes) own.memory().written_by_host(address, size);
  return own.memory().bytes_of(address);
}

}  // namespace sp::emulator
