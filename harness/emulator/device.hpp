// What device code calls on the emulator: the bodies of the wrappers in device.cuh and
// global_memory.hpp. Every call belongs to the lane whose fiber runs; README.md has the rules.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <math.h>  // fmaxf and its like are global in CUDA

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "harness/emulator/vector_types.hpp"

namespace sp::emulator {

struct __half;

// Constant for the life of a lane, so calls are free to move.
[[gnu::const]] uint3 thread_index();
[[gnu::const]] uint3 block_index();
[[gnu::const]] uint3 block_dimensions();
[[gnu::const]] uint3 grid_dimensions();
[[gnu::const]] int lane();

// CUDA's built-in variables: their members ask for the lane that runs.
template <uint3 of_lane(), unsigned uint3::* axis>
struct BuiltInAxis {
  operator unsigned() const { return of_lane().*axis; }
};
template <uint3 of_lane()>
struct BuiltIn {
  BuiltInAxis<of_lane, &uint3::x> x;
  BuiltInAxis<of_lane, &uint3::y> y;
  BuiltInAxis<of_lane, &uint3::z> z;
};
inline constexpr BuiltIn<thread_index> threadIdx{};
inline constexpr BuiltIn<block_index> blockIdx{};
inline constexpr BuiltIn<block_dimensions> blockDim{};
inline constexpr BuiltIn<grid_dimensions> gridDim{};

// ---- Memory ------------------------------------------------------------------------------------

// Check one access of this lane, and give the host's address of its bytes.
const std::byte* read_global(const void* address, int bytes);
std::byte* write_global(void* address, int bytes);
template <int kBytes>
const std::byte* read_shared(const void* address);
template <int kBytes>
std::byte* write_shared(void* address);

// The address of the block's shared memory; not one that the host may follow.
std::byte* shared_memory();

template <class T>
constexpr bool kOneAccess =
    std::is_trivially_copyable_v<T> &&
    (sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);

template <class T>
std::remove_const_t<T> load_global(T* address) {
  static_assert(kOneAccess<T>);
  std::remove_const_t<T> value;
  std::memcpy(&value, read_global(address, sizeof(T)), sizeof(T));
  return value;
}
template <class T>
void store_global(T* address, const T& value) {
  static_assert(kOneAccess<T>);
  std::memcpy(write_global(address, sizeof(T)), &value, sizeof(T));
}
void add_global(float* address, float value);
void add_global(int* address, int value);

template <class T>
std::remove_const_t<T> load_shared(T* address) {
  static_assert(kOneAccess<T> && sizeof(T) > 1, "shared memory is checked by 2 bytes");
  std::remove_const_t<T> value;
  std::memcpy(&value, read_shared<sizeof(T)>(address), sizeof(T));
  return value;
}
template <class T>
void store_shared(T* address, const T& value) {
  static_assert(kOneAccess<T> && sizeof(T) > 1, "shared memory is checked by 2 bytes");
  std::memcpy(write_shared<sizeof(T)>(address), &value, sizeof(T));
}

void async_copy_16(void* shared_to, const void* global_from, bool valid);
void async_commit();
void async_wait(int pending);

// ---- Barriers and warp operations --------------------------------------------------------------

void block_barrier();
void warp_barrier();

std::uint32_t ballot(bool predicate);
std::uint64_t shuffle_bits(std::uint64_t value, int lane);  // of a lane modulo 32
template <class T>
T shuffle(T value, int lane) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle_bits(bits, lane);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

void load_matrix_x4(std::uint32_t (&r)[4], const void* row, bool transposed);

void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);
void mma_f16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);
template <class T>
void mma_16x8x16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    mma_f16(c, a, b0, b1);
  } else {
    mma_bf16(c, a, b0, b1);
  }
}

// ---- Numbers -----------------------------------------------------------------------------------

float exp2_approximate(float x);

// To the nearest, ties to even; the conversions of cuda_bf16.h and cuda_fp16.h.
std::uint16_t round_to_bf16(float x);
std::uint16_t round_to_f16(float x);

// CUDA's overloads of the global min and max.
#define SP_MIN_MAX(T)                                 \
  constexpr T min(T a, T b) { return b < a ? b : a; } \
  constexpr T max(T a, T b) { return a < b ? b : a; }
SP_MIN_MAX(int)
SP_MIN_MAX(unsigned)
SP_MIN_MAX(long)
SP_MIN_MAX(unsigned long)
SP_MIN_MAX(long long)
SP_MIN_MAX(unsigned long long)
#undef SP_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

}  // namespace sp::emulator
