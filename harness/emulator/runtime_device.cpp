// Devices: which there are, what they have, what went wrong with them.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstring>

#include "harness/emulator/hosts.hpp"
#include "harness/emulator/streams.hpp"

namespace sp::emulator {
namespace {

constexpr int kVersion = 12000;  // whose documentation holds

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};
constexpr ErrorText kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection",
     "invalid copy direction for memcpy"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
};

const ErrorText& text_of(cudaError_t error) {
  static constexpr ErrorText kUnknown = {cudaSuccess, "cudaErrorUnknown", "unknown error"};
  for (const ErrorText& each : kErrors) {
    if (each.error == error) return each;
  }
  return kUnknown;
}

cudaError_t refuse(cudaError_t error, const std::string& what) {
  keep_fault(FaultKind::kApi, what);
  return returned(error);
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) { return text_of(error).name; }

const char* cudaGetErrorString(cudaError_t error) {
  thread_local std::string text;
  text = text_of(error).text;
  if (error != cudaSuccess && exists(current_device())) {
    Device& own = device(current_device());
    const std::lock_guard lock(own.mutex);
    const std::string story = own.story(error);
    if (!story.empty()) text += "; " + story;
  }
  return text.c_str();
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = settings().devices;
  return *count > 0 ? cudaSuccess : returned(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int ordinal) {
  if (!exists(ordinal)) {
    return refuse(cudaErrorInvalidDevice, fmt::format("cudaSetDevice: no device {}", ordinal));
  }
  set_current_device(ordinal);
  enter_host();
  Device& own = device(ordinal);
  const std::lock_guard lock(own.mutex);
  return returned(own.error());
}

cudaError_t cudaGetDevice(int* ordinal) {
  *ordinal = current_device();
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int ordinal) {
  if (!exists(ordinal)) {
    return refuse(cudaErrorInvalidDevice,
                  fmt::format("cudaGetDeviceProperties: no device {}", ordinal));
  }
  const GpuModel& m = model();
  *p = {};
  const std::string name = fmt::format("emulated {}", m.name);
  std::memcpy(p->name, name.c_str(), name.size() + 1);
  p->major = m.major;
  p->minor = m.minor;
  p->multiProcessorCount = m.processors;
  p->sharedMemPerBlock = 48 * 1024;
  p->sharedMemPerBlockOptin = static_cast<std::size_t>(m.shared_per_block);
  p->sharedMemPerMultiprocessor = static_cast<std::size_t>(m.shared_per_processor);
  p->reservedSharedMemPerBlock = 1024;
  p->regsPerBlock = p->regsPerMultiprocessor = m.registers_per_processor;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = m.threads_per_processor;
  p->maxBlocksPerMultiProcessor = m.blocks_per_processor;
  constexpr int kThreads[3] = {1024, 1024, 64};
  constexpr int kBlocks[3] = {2147483647, 65535, 65535};
  std::memcpy(p->maxThreadsDim, kThreads, sizeof kThreads);
  std::memcpy(p->maxGridSize, kBlocks, sizeof kBlocks);
  p->totalGlobalMem = kArenaBytes;
  p->l2CacheSize = m.l2_bytes;
  p->memoryBusWidth = m.memory_bus_bits;
  p->pciBusID = ordinal + 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int ordinal) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, ordinal)) return error;
  switch (attribute) {
    case cudaDevAttrClockRate:
      *value = model().clock_khz;
      return cudaSuccess;
    case cudaDevAttrMemoryClockRate:
      *value = model().memory_clock_khz;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
      *value = p.memoryBusWidth;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = p.maxThreadsPerMultiProcessor;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = model().shared_per_processor;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = model().shared_per_block;
      return cudaSuccess;
  }
  return refuse(cudaErrorInvalidValue, fmt::format("cudaDeviceGetAttribute: attribute {} is not "
                                                   "modelled",
                                                   static_cast<int>(attribute)));
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaDeviceSynchronize() {
  return on_device("cudaDeviceSynchronize",
                   [](Device& own, auto& lock) { return wait_for(own, lock, own.everything()); });
}

cudaError_t cudaDeviceReset() {
  {
    Device& own = device(current_device());
    const std::lock_guard lock(own.mutex);
    add_leaks(own.objects());
    own.reset();
  }
  leave_host();
  return cudaSuccess;
}

}  // namespace sp::emulator
