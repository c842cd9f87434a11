// Roundings to 16 bits, and the fast exponential.
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>

#include "harness/emulator/block.hpp"

namespace sp::emulator {
namespace {

constexpr std::uint32_t kInfinity = 0x7f800000u;  // of f32
constexpr std::uint16_t kNaN16 = 0x7fffu;         // what CUDA's conversions make of every NaN

bool toward_zero() {
  const Unseen unseen;
  return current_lane != nullptr && current_lane->block->sabotage.round_toward_zero;
}

}  // namespace

std::uint16_t round_to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > kInfinity) return kNaN16;
  const std::uint32_t half = toward_zero() ? 0 : 0x7fffu + (bits >> 16 & 1u);
  return static_cast<std::uint16_t>((bits + half) >> 16);
}

std::uint16_t round_to_f16(float x) {
  constexpr std::uint32_t kLeastNormal = 113u << 23;  // 2^-14
  constexpr std::uint32_t kOverflow = 0x477ff000u;    // 65520: halfway from the largest number
  constexpr std::uint32_t kBias = 112u << 23;         // of the exponents' difference
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const bool truncates = toward_zero();
  if (magnitude > kInfinity) return kNaN16;
  if (magnitude >= kOverflow) {
    const bool infinite = magnitude == kInfinity || !truncates;
    return static_cast<std::uint16_t>(sign | (infinite ? 0x7c00u : 0x7bffu));
  }
  std::uint32_t result;
  if (magnitude >= kLeastNormal) {
    const std::uint32_t half = truncates ? 0 : 0xfffu + (magnitude >> 13 & 1u);
    result = (magnitude - kBias + half) >> 13;
  } else if (truncates) {
    result = static_cast<std::uint32_t>(std::bit_cast<float>(magnitude) * 0x1p24f);
  } else {
    // Beside 1/2 a unit in the last place is 2^-24, the unit of subnormal f16.
    result = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) -
             std::bit_cast<std::uint32_t>(0.5f);
  }
  return static_cast<std::uint16_t>(sign | result);
}

// Right to 2^-22 and no more: off by a unit in the last place, up, down or not, as the machine's
// seed and x have it. Exact where the PTX ISA is: 0, infinities. Subnormal arguments and results
// are 0.
float exp2_approximate(float x) {
  const Unseen unseen;
  const Block& block = *current_lane->block;
  if (std::isnan(x) || std::isinf(x)) return std::exp2(x);
  if (block.sabotage.exp2_without_integer_part) x -= std::floor(x);
  if (std::fabs(x) < 0x1p-126f) return 1;
  const float y = std::exp2(x);
  if (y < 0x1p-126f) return 0;
  if (std::isinf(y)) return y;
  const auto dice = (std::bit_cast<std::uint32_t>(x) + block.exp2_seed) * 0x9e3779b9u >> 16;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(y) + dice % 3 - 1);
}

}  // namespace sp::emulator
