// Storage types and their exact conversions.
//
// bf16 and f16 are storage only: every computation widens first and rounds to nearest even when it
// stores.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace sp {

enum class DType : std::uint8_t { kF32, kBF16, kF16, kF64, kI32 };

struct bf16 {
  std::uint16_t bits;
};
struct f16 {
  std::uint16_t bits;
};

bf16 to_bf16(float value);
f16 to_f16(float value);
float to_float(bf16 value);
float to_float(f16 value);

constexpr std::size_t size_of(DType type) {
  switch (type) {
    case DType::kF64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
  }
  return 0;
}

// Partial results, log-sum-exp and gradients in flight are held in f32, or f64 when storage is f64.
constexpr DType accumulator_of(DType type) {
  return type == DType::kF64 ? DType::kF64 : DType::kF32;
}

// u, half the distance from 1 to the next number: the largest relative error of one rounding.
constexpr double unit_roundoff(DType type) {
  switch (type) {
    case DType::kF64:
      return 0x1p-53;
    case DType::kF32:
      return 0x1p-24;
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    case DType::kI32:
      return 0;
  }
  return 0;
}

std::string_view name_of(DType type);
DType parse_dtype(std::string_view name);  // throws Error(kUsage) with the allowed names

// Reads or writes one element as double or float; the conversions are the ones above.
template <class T>
auto widen(T value) {
  if constexpr (std::is_same_v<T, bf16> || std::is_same_v<T, f16>) {
    return to_float(value);
  } else {
    return value;
  }
}
template <class T, class From>
T narrow(From value) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(static_cast<float>(value));
  } else if constexpr (std::is_same_v<T, f16>) {
    return to_f16(static_cast<float>(value));
  } else {
    return static_cast<T>(value);
  }
}

// Calls f.template operator()<T>() with the C++ type of `type`.
template <class F>
decltype(auto) visit_dtype(DType type, F&& f) {
  switch (type) {
    case DType::kBF16:
      return f.template operator()<bf16>();
    case DType::kF16:
      return f.template operator()<f16>();
    case DType::kF64:
      return f.template operator()<double>();
    case DType::kI32:
      return f.template operator()<std::int32_t>();
    case DType::kF32:
      break;
  }
  return f.template operator()<float>();
}

// The conversions are inline because kernels call them once per element.
inline bf16 to_bf16(float value) {
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
inline float to_float(bf16 value) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(value.bits) << 16);
}

}  // namespace sp
