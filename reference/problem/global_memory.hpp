// How device code touches global memory, for every kernel of the project.
//
// Device sources are compiled twice: by nvcc for GPUs, into the namespace sp::cuda, and by the host
// compiler against the emulator's <cuda_runtime.h>, into sp::emulated. SP_GPU is the name of that
// namespace, set by the build. Wrappers with two bodies stand side by side here and in
// optimized/kernels/cuda/device.cuh; no other source asks which one it is.
//
// On the emulator every access is checked: bounds, alignment, initialisation, order with the
// accesses of other blocks, streams and devices. A plain dereference of a device address faults.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#ifndef SP_GPU
#error "SP_GPU names the namespace of device code: cuda or emulated"
#endif

namespace sp::SP_GPU {

// The address of elements in global memory, looked through by its own functions only.
template <class T>
class Global {
 public:
  Global() = default;
  __host__ __device__ explicit Global(T* address) : address_(address) {}
  __host__ __device__ T* address() const { return address_; }
  __host__ __device__ explicit operator bool() const { return address_ != nullptr; }
  __host__ __device__ Global operator+(std::int64_t elements) const { return Global(at(elements)); }
  template <class U>
    requires std::is_same_v<const U, T>
  __host__ __device__ Global(Global<U> other) : address_(other.address()) {}  // T is const

  __device__ T load(std::int64_t i = 0) const {
#ifdef SP_EMULATOR
    return emulator::load_global(at(i));
#else
    return *at(i);
#endif
  }
  __device__ void store(std::int64_t i, T value) const {
#ifdef SP_EMULATOR
    emulator::store_global(at(i), value);
#else
    *at(i) = value;
#endif
  }
  // The sizeof(V) bytes from element i on, as one access; aligned to sizeof(V). V is float4, uint4...
  template <class V>
  __device__ V load_as(std::int64_t i) const {
#ifdef SP_EMULATOR
    return emulator::load_global(reinterpret_cast<const V*>(at(i)));
#else
    return *reinterpret_cast<const V*>(at(i));
#endif
  }
  template <class V>
  __device__ void store_as(std::int64_t i, V value) const {
#ifdef SP_EMULATOR
    emulator::store_global(reinterpret_cast<V*>(at(i)), value);
#else
    *reinterpret_cast<V*>(at(i)) = value;
#endif
  }
  // The same where another branch stores the elements one by one: an assignment would be taken apart,
  // so that both branches share its single stores.
  template <class V>
  __device__ void store_whole(std::int64_t i, V value) const {
#ifdef SP_EMULATOR
    store_as(i, value);
#else
    __stwb(reinterpret_cast<V*>(at(i)), value);
#endif
  }
  // Atomically adds; float and int.
  __device__ void add(std::int64_t i, T value) const {
#ifdef SP_EMULATOR
    emulator::add_global(at(i), value);
#else
    atomicAdd(at(i), value);
#endif
  }

 private:
  // The emulator judges addresses when they are used; until then they are numbers, and those of
  // tensors without elements are null.
  __host__ __device__ T* at(std::int64_t i) const {
#ifdef SP_EMULATOR
    constexpr auto kSize = static_cast<std::intptr_t>(sizeof(T));
    return reinterpret_cast<T*>(reinterpret_cast<std::intptr_t>(address_) + i * kSize);
#else
    return address_ + i;
#endif
  }

  T* address_ = nullptr;
};

}  // namespace sp::SP_GPU
