// Streams and events.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/emulator/hosts.hpp"
#include "harness/emulator/streams.hpp"

namespace sp::emulator {
namespace {

using Lock = std::unique_lock<std::mutex>;

// The upper part of a handle names its device.
int device_of_handle(const void* handle) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(handle) >> 40) - 1;
}

// Calls for an event alone do not care which device is current.
Device& device_with(cudaEvent_t event) {
  const int ordinal = device_of_handle(event);
  return device(exists(ordinal) ? ordinal : current_device());
}

Event& event_of(Device& own, cudaEvent_t handle) {
  Event* event = own.find(handle);
  if (event == nullptr) {
    const int ordinal = device_of_handle(handle);
    throw ApiError(cudaErrorInvalidResourceHandle,
                   exists(ordinal) && ordinal != own.ordinal()
                       ? fmt::format("event of device {} used where one of device {} belongs",
                                     ordinal, own.ordinal())
                       : "no such event, or it was destroyed");
  }
  return *event;
}

}  // namespace

Stream& stream_of(Device& own, cudaStream_t handle) {
  Stream* stream = own.find(handle);
  if (stream == nullptr) {
    const int ordinal = device_of_handle(handle);
    throw ApiError(cudaErrorInvalidResourceHandle,
                   exists(ordinal) && ordinal != own.ordinal()
                       ? fmt::format("stream of device {} used while device {} is current", ordinal,
                                     own.ordinal())
                       : "no such stream, or it was destroyed");
  }
  return *stream;
}

std::uint32_t enqueue(cudaStream_t handle, std::unique_ptr<StreamOperation> operation) {
  Device& own = device(current_device());
  const Lock lock(own.mutex);
  if (own.error() != cudaSuccess) return 0;
  return own.post(stream_of(own, handle), std::move(operation));
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return on_device("cudaStreamCreateWithFlags", [&](Device& own, Lock&) {
    if (flags > cudaStreamNonBlocking) {
      throw ApiError(cudaErrorInvalidValue, fmt::format("unknown flags {}", flags));
    }
    *stream = own.add_stream(flags == cudaStreamDefault);
    if (*stream == nullptr) {
      throw ApiError(
          cudaErrorMemoryAllocation,
          fmt::format("more than {} streams that the host has not waited for", kStreamSlots - 1),
          FaultKind::kResources);
    }
    return cudaSuccess;
  });
}

// Priorities order nothing here: whoever relies on one is found by the adversary.
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return on_device(
      "cudaStreamDestroy",
      [&](Device& own, Lock&) {
        if (stream == nullptr) {
          throw ApiError(cudaErrorInvalidResourceHandle, "the default stream cannot be destroyed");
        }
        stream_of(own, stream);
        own.remove_stream(stream);
        return cudaSuccess;
      },
      /*releases=*/true);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return on_device("cudaStreamSynchronize", [&](Device& own, Lock& lock) {
    return wait_for(own, lock, Past(stream_of(own, stream).past));
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return on_device("cudaStreamQuery", [&](Device& own, Lock& lock) {
    return ask_for(own, lock, Past(stream_of(own, stream).past));
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  Device& there = device_with(event);
  Past before;
  if (there.ordinal() != current_device()) {
    const cudaError_t error = on_device(there, "cudaStreamWaitEvent", [&](Device& other, Lock&) {
      before = other.past_for_others(event_of(other, event));
      return cudaSuccess;
    });
    if (error != cudaSuccess) return error;
  }
  return on_device("cudaStreamWaitEvent", [&](Device& own, Lock&) {
    if (flags != 0) throw ApiError(cudaErrorInvalidValue, fmt::format("unknown flags {}", flags));
    Stream& waits = stream_of(own, stream);
    if (&there == &own) before = event_of(own, event).past;
    if (!sabotaged("stream_wait_ignored")) join(waits.past, before);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return on_device("cudaEventCreateWithFlags", [&](Device& own, Lock&) {
    if ((flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) != 0) {
      throw ApiError(cudaErrorInvalidValue, fmt::format("unknown flags {}", flags));
    }
    *event = own.add_event((flags & cudaEventDisableTiming) == 0);
    return cudaSuccess;
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return on_device(
      device_with(event), "cudaEventDestroy",
      [&](Device& own, Lock&) {
        event_of(own, event);
        own.remove_event(event);
        return cudaSuccess;
      },
      /*releases=*/true);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return on_device("cudaEventRecord", [&](Device& own, Lock&) {
    Event& recorded = event_of(own, event);
    Stream* on = &stream_of(own, stream);
    if (sabotaged("event_on_wrong_stream")) {
      if (Stream* other = own.any_other_stream(*on)) on = other;
    }
    own.record(recorded, *on);
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return on_device(device_with(event), "cudaEventQuery", [&](Device& own, Lock& lock) {
    return ask_for(own, lock, Past(event_of(own, event).past));
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return on_device(device_with(event), "cudaEventSynchronize", [&](Device& own, Lock& lock) {
    return wait_for(own, lock, Past(event_of(own, event).past));
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return on_device(device_with(start), "cudaEventElapsedTime", [&](Device& own, Lock&) {
    const Event& a = event_of(own, start);
    const Event& b = event_of(own, end);
    if (!a.timed || !b.timed || !a.recorded || !b.recorded) {
      throw ApiError(cudaErrorInvalidResourceHandle,
                     "an event that was not recorded, or created without timing");
    }
    if (*a.milliseconds < 0 || *b.milliseconds < 0) return cudaErrorNotReady;
    *milliseconds = static_cast<float>(*b.milliseconds - *a.milliseconds);
    return cudaSuccess;
  });
}

}  // namespace sp::emulator
