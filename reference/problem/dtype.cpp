// SPDX-License-Identifier: Apache-2.0
#include "reference/problem/dtype.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

struct Name {
  DType type;
  std::string_view name;
};
constexpr std::array<Name, 5> kNames{{{DType::kF32, "f32"},
                                      {DType::kBF16, "bf16"},
                                      {DType::kF16, "f16"},
                                      {DType::kF64, "f64"},
                                      {DType::kI32, "i32"}}};

}  // namespace

// Round to nearest even; numbers below 2^-14 become subnormal, above 65504 + half a step infinite.
f16 to_f16(float value) {
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24
    const float scaled = std::nearbyint(std::fabs(value) * 0x1p24f);
    return {static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(scaled))};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

float to_float(f16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  const std::uint32_t exponent = (value.bits >> 10) & 0x1fu;
  const std::uint32_t fraction = value.bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t biased = exponent == 31 ? 0xffu : exponent + 112u;
  return __builtin_bit_cast(float, sign | (biased << 23) | (fraction << 13));
}

std::string_view name_of(DType type) {
  for (const Name& entry : kNames) {
    if (entry.type == type) return entry.name;
  }
  return "unknown";
}

DType parse_dtype(std::string_view name) {
  for (const Name& entry : kNames) {
    if (entry.name == name && entry.type != DType::kI32) return entry.type;
  }
  throw Error(ErrorKind::kUsage,
              fmt::format("unknown dtype '{}'; allowed: f32, bf16, f16, f64", name));
}

}  // namespace sp
