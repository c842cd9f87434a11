// f16 as CUDA names it: IEEE 754 binary16. Storage and conversions only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/emulator/device.hpp"

namespace sp::emulator {

struct __half {
  std::uint16_t bits;
};

inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }

inline __half __float2half_rn(float x) { return {round_to_f16(x)}; }
inline __half __float2half(float x) { return {round_to_f16(x)}; }
inline float __half2float(__half x) {
  const std::uint32_t magnitude = static_cast<std::uint32_t>(x.bits & 0x7fffu) << 13;
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  if (magnitude >= 0x0f800000u) {  // infinity or NaN
    return __builtin_bit_cast(float, sign | magnitude | 0x7f800000u);
  }
  // The exponent's bias grows by 112; multiplying normalises subnormal numbers too, exactly.
  const float value = __builtin_bit_cast(float, magnitude) * 0x1p112f;
  return __builtin_bit_cast(float, sign | __builtin_bit_cast(std::uint32_t, value));
}

}  // namespace sp::emulator

using namespace sp::emulator;  // NOLINT: CUDA's names are global
