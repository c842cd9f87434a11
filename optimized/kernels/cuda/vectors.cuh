// Memory-bound kernels: accesses to several neighbouring elements at once, 16 bytes or four elements,
// and grids that walk over everything in strides.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "optimized/kernels/cuda/device.cuh"
#include "optimized/kernels/cuda/gpu.hpp"

namespace sp::SP_GPU {

template <class T>
constexpr int kVectorElements = 16 / static_cast<int>(sizeof(T));

template <class T, int kElements = kVectorElements<T>>
struct alignas(kElements * sizeof(T)) Vector {
  static_assert(sizeof(T) * kElements == 16 || sizeof(T) * kElements == 8);
  using Word = std::conditional_t<sizeof(T) * kElements == 16, uint4, uint2>;  // one access
  T x[kElements];
};

// Elements i, i + 1, ... of an address that is aligned there.
template <int kElements, class T>
__device__ auto load_vector(Global<const T> from, std::int64_t i) {
  using Loaded = Vector<T, kElements>;
  return __builtin_bit_cast(Loaded, from.template load_as<typename Loaded::Word>(i));
}

template <class T, int kElements>
__device__ void store_vector(Global<T> to, std::int64_t i, const Vector<T, kElements>& elements) {
  using Word = typename Vector<T, kElements>::Word;
  to.template store_as<Word>(i, __builtin_bit_cast(Word, elements));
}

// Whether the address and every multiple of `stride` elements after it are aligned for vectors.
template <int kElements, class T>
__host__ __device__ bool vector_aligned(const T* address, std::int64_t stride = 0) {
  const auto distance = static_cast<std::uintptr_t>(stride) * sizeof(T);
  return (reinterpret_cast<std::uintptr_t>(address) | distance) % (kElements * sizeof(T)) == 0;
}

constexpr int kStrideThreads = 256;

// Blocks of kStrideThreads for so many threads in all, but not more than fill the GPU twice: then
// every thread does several items.
inline Launch grid_stride(const Gpu& gpu, std::int64_t threads) {
  const cudaDeviceProp& properties = gpu.properties();
  const std::int64_t full = std::int64_t{properties.multiProcessorCount} *
                            (properties.maxThreadsPerMultiProcessor / kStrideThreads);
  const std::int64_t blocks = (threads + kStrideThreads - 1) / kStrideThreads;
  return {dim3(static_cast<unsigned>(std::min(blocks, 2 * full))), kStrideThreads, 0};
}

}  // namespace sp::SP_GPU
