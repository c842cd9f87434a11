// bf16 as CUDA names it: the upper half of an f32. Storage and conversions only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/emulator/device.hpp"

namespace sp::emulator {

struct __nv_bfloat16 {
  std::uint16_t bits;
};

inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }

inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {round_to_bf16(x)}; }
inline __nv_bfloat16 __float2bfloat16(float x) { return {round_to_bf16(x)}; }
inline float __bfloat162float(__nv_bfloat16 x) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(x.bits) << 16);
}

}  // namespace sp::emulator

using namespace sp::emulator;  // NOLINT: CUDA's names are global
