// The vocabulary of the kernels: shared memory, warps, barriers, asynchronous copies, tensor cores.
//
// Every wrapper has two bodies side by side: PTX or CUDA for a GPU, a checked call for the emulator
// (harness/emulator/README.md). Portable: sm_80 and newer, nothing beyond mma.sync.
//
// Shared memory   One dynamic array per block, carved up by byte offsets; no __shared__ variables.
// Warp operations Shuffles, votes, load_matrix and mma are met by all 32 lanes together.
// Memory order    block_barrier() orders the block's accesses, warp_barrier() those of a warp;
//                 shuffles and mma order nothing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <type_traits>

#include "reference/problem/global_memory.hpp"

namespace sp::SP_GPU {

constexpr int kWarp = 32;

__device__ inline int thread_id() { return static_cast<int>(threadIdx.x); }  // blocks are 1-D
__device__ inline int lane_id() { return thread_id() % kWarp; }
__device__ inline int warp_id() { return thread_id() / kWarp; }

// Elements in the block's shared memory.
template <class T>
class Shared {
 public:
  Shared() = default;
  __device__ explicit Shared(T* address) : address_(address) {}
  __device__ T* address() const { return address_; }
  __device__ Shared operator+(int elements) const { return Shared(address_ + elements); }
  template <class U>
    requires std::is_same_v<const U, T>
  __device__ Shared(Shared<U> other) : address_(other.address()) {}  // T is const

  __device__ T load(int i = 0) const {
#ifdef SP_EMULATOR
    return emulator::load_shared(address_ + i);
#else
    return address_[i];
#endif
  }
  __device__ void store(int i, T value) const {
#ifdef SP_EMULATOR
    emulator::store_shared(address_ + i, value);
#else
    address_[i] = value;
#endif
  }
  // sizeof(V) bytes from element i on as one access, aligned to sizeof(V).
  template <class V>
  __device__ V load_as(int i) const {
#ifdef SP_EMULATOR
    return emulator::load_shared(reinterpret_cast<const V*>(address_ + i));
#else
    return *reinterpret_cast<const V*>(address_ + i);
#endif
  }
  template <class V>
  __device__ void store_as(int i, V value) const {
#ifdef SP_EMULATOR
    emulator::store_shared(reinterpret_cast<V*>(address_ + i), value);
#else
    *reinterpret_cast<V*>(address_ + i) = value;
#endif
  }

 private:
  T* address_ = nullptr;
};

#ifndef SP_EMULATOR
extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];
#endif

// The block's dynamic shared memory from a byte offset on.
template <class T>
__device__ Shared<T> shared_memory(int byte_offset) {
#ifdef SP_EMULATOR
  return Shared<T>(reinterpret_cast<T*>(emulator::shared_memory() + byte_offset));
#else
  return Shared<T>(reinterpret_cast<T*>(dynamic_shared_memory + byte_offset));
#endif
}

// ---- Barriers, shuffles, votes -----------------------------------------------------------------

__device__ inline void block_barrier() {
#ifdef SP_EMULATOR
  emulator::block_barrier();
#else
  __syncthreads();
#endif
}

__device__ inline void warp_barrier() {
#ifdef SP_EMULATOR
  emulator::warp_barrier();
#else
  __syncwarp();
#endif
}

template <class T>
__device__ T shuffle(T value, int lane) {
#ifdef SP_EMULATOR
  return emulator::shuffle(value, lane);
#else
  return __shfl_sync(0xffffffffu, value, lane);
#endif
}

template <class T>
__device__ T shuffle_xor(T value, int mask) {
#ifdef SP_EMULATOR
  return emulator::shuffle(value, emulator::lane() ^ mask);
#else
  return __shfl_xor_sync(0xffffffffu, value, mask);
#endif
}

__device__ inline bool warp_any(bool predicate) {
#ifdef SP_EMULATOR
  return emulator::ballot(predicate) != 0;
#else
  return __any_sync(0xffffffffu, predicate);
#endif
}

// Bit l: the predicate of lane l.
__device__ inline std::uint32_t warp_ballot(bool predicate) {
#ifdef SP_EMULATOR
  return emulator::ballot(predicate);
#else
  return __ballot_sync(0xffffffffu, predicate);
#endif
}

__device__ inline bool warp_all(bool predicate) {
#ifdef SP_EMULATOR
  return emulator::ballot(predicate) == 0xffffffffu;
#else
  return __all_sync(0xffffffffu, predicate);
#endif
}

// Sum and maximum over the `width` lanes that share lane_id() / width; every lane gets it.
template <int width = kWarp, class T>
__device__ T warp_sum(T value) {
  for (int mask = width / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
template <int width = kWarp>
__device__ float warp_max(float value) {
  for (int mask = width / 2; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}

// ---- Asynchronous copies from global to shared memory ------------------------------------------

// 16 bytes, both sides 16-byte aligned. !valid: writes zeros and reads nothing.
template <class T>
__device__ void async_copy_16(Shared<T> to, Global<const T> from, bool valid) {
#ifdef SP_EMULATOR
  emulator::async_copy_16(to.address(), from.address(), valid);
#else
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(to.address()));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared), "l"(from.address()),
               "r"(bytes)
               : "memory");
#endif
}

// Closes a group of this thread's copies since the last commit.
__device__ inline void async_commit() {
#ifdef SP_EMULATOR
  emulator::async_commit();
#else
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

// Until all but this thread's `pending` newest groups have landed; other threads need a barrier too.
template <int pending>
__device__ void async_wait() {
#ifdef SP_EMULATOR
  emulator::async_wait(pending);
#else
  asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
#endif
}

// ---- Tensor cores ------------------------------------------------------------------------------

// Four 8x8 matrices of 16-bit elements. Lane l gives the address of row l % 8 of matrix l / 8 (16
// bytes, 16-byte aligned) and receives of matrix i in r[i] the elements of row l / 4, columns
// 2 (l % 4) and 2 (l % 4) + 1, the lower column in the lower half.
template <class T>
__device__ void load_matrix_x4(std::uint32_t (&r)[4], Shared<T> row) {
#ifdef SP_EMULATOR
  emulator::load_matrix_x4(r, row.address(), false);
#else
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(row.address()));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared)
               : "memory");
#endif
}

// The same with every matrix transposed.
template <class T>
__device__ void load_matrix_x4_transposed(std::uint32_t (&r)[4], Shared<T> row) {
#ifdef SP_EMULATOR
  emulator::load_matrix_x4(r, row.address(), true);
#else
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(row.address()));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared)
               : "memory");
#endif
}

// c += a b with a [16, 16] and b [16, 8] of T (bf16 or f16), c [16, 8] of f32. With row = l / 4 and
// column = 2 (l % 4) of lane l, the lower index in the lower half of a register:
//   a[0], a[1]  rows row, row + 8, columns column, column + 1;  a[2], a[3]  columns + 8
//   b[0], b[1]  rows column, column + 1 and the same + 8, of column row
//   c[0], c[1]  row row, columns column, column + 1;            c[2], c[3]  row row + 8
template <class T>
__device__ void mma_16x8x16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                            std::uint32_t b1) {
#ifdef SP_EMULATOR
  emulator::mma_16x8x16<T>(c, a, b0, b1);
#else
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}

// ---- Numbers -----------------------------------------------------------------------------------

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float to_float(__half x) { return __half2float(x); }

// Rounds to nearest, ties to even.
template <class T>
__device__ T from_float(float x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else {
    return x;
  }
}

// Two rounded numbers in one register, `low` in the lower half.
template <class T>
__device__ std::uint32_t pack(float low, float high) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    const std::uint32_t l = __bfloat16_as_ushort(__float2bfloat16_rn(low));
    return l | static_cast<std::uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16;
  } else {
    const std::uint32_t l = __half_as_ushort(__float2half_rn(low));
    return l | static_cast<std::uint32_t>(__half_as_ushort(__float2half_rn(high))) << 16;
  }
}

// The same number, about which the compiler knows nothing: what is computed from it is computed where
// it stands, not hoisted out of loops to wait in registers.
__device__ inline int opaque(int x) {
#ifndef SP_EMULATOR
  asm volatile("" : "+r"(x));
#endif
  return x;
}

// a b, rounded whatever is done with it: never the first half of a fused multiply-add.
__device__ inline float rounded_product(float a, float b) {
#ifdef SP_EMULATOR
  const volatile float product = a * b;
  return product;
#else
  return __fmul_rn(a, b);
#endif
}

// 2^x with a relative error below 2^-22; 0 for -inf.
__device__ inline float exp2_approximate(float x) {
#ifdef SP_EMULATOR
  return emulator::exp2_approximate(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
#endif
}

}  // namespace sp::SP_GPU
