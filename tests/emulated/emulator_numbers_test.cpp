// Conversions of the emulator against the project's own, and its fast exponential.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "harness/emulator/emulator.hpp"
#include "reference/problem/dtype.hpp"
#include "tests/emulated/lanes.hpp"

namespace sp::emulated {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool same(float a, float b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

void expect_same_roundings(float x) {
  const bool nan = std::isnan(x);
  ASSERT_EQ(__bfloat16_as_ushort(__float2bfloat16_rn(x)), nan ? 0x7fff : to_bf16(x).bits) << x;
  ASSERT_EQ(__half_as_ushort(__float2half_rn(x)), nan ? 0x7fff : to_f16(x).bits) << x;
}

TEST(EmulatorNumbers, WidenExactly) {
  for (unsigned bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    ASSERT_TRUE(same(__bfloat162float(__ushort_as_bfloat16(half)), sp::to_float(bf16{half})))
        << bits;
    ASSERT_TRUE(same(__half2float(__ushort_as_half(half)), sp::to_float(f16{half}))) << bits;
  }
}

TEST(EmulatorNumbers, RoundingUndoesWidening) {
  for (unsigned bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float wide = __half2float(__ushort_as_half(half));
    ASSERT_EQ(__half_as_ushort(__float2half_rn(wide)), std::isnan(wide) ? 0x7fff : half);
    const float wide_bf = __bfloat162float(__ushort_as_bfloat16(half));
    ASSERT_EQ(__bfloat16_as_ushort(__float2bfloat16_rn(wide_bf)),
              std::isnan(wide_bf) ? 0x7fff : half);
  }
}

// Beside every 16-bit number, beside every point halfway between two, and there.
TEST(EmulatorNumbers, RoundToNearestWithTiesToEven) {
  const auto around = [](float x) {
    for (const float y : {x, std::nextafter(x, kInfinity), std::nextafter(x, -kInfinity)}) {
      expect_same_roundings(y);
    }
  };
  const auto halfway = [](float a, float b) {
    return static_cast<float>((double{a} + double{b}) / 2);
  };
  for (unsigned bits = 0; bits < 0xffff; ++bits) {
    if ((bits & 0x7fff) == 0x7fff) continue;
    const auto here = static_cast<std::uint16_t>(bits), next = static_cast<std::uint16_t>(bits + 1);
    around(sp::to_float(bf16{here}));
    around(sp::to_float(f16{here}));
    around(halfway(sp::to_float(bf16{here}), sp::to_float(bf16{next})));
    around(halfway(sp::to_float(f16{here}), sp::to_float(f16{next})));
  }
  for (const float x : {65503.0f, 65519.996f, 65520.0f, 65536.0f, 3.4e38f, kInfinity, 0x1p-25f,
                        0x1.000002p-25f, 0x1p-149f, 0x1p-133f, 0x1p-134f}) {
    around(x);
    around(-x);
  }
  std::mt19937 random(5);
  for (int i = 0; i < 1'000'000; ++i) {
    expect_same_roundings(std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  }
}

TEST(EmulatorNumbers, PackPutsTheFirstBelow) {
  EXPECT_EQ(pack<__half>(1, -2), 0xc0003c00u);
  EXPECT_EQ(pack<__nv_bfloat16>(1, -2), 0xc0003f80u);
}

TEST(EmulatorNumbers, SabotagedRoundingTruncates) {
  emulator::plant({.id = "round_toward_zero", .kernel = ""});
  run_lanes({.threads = 1}, [] {
    EXPECT_EQ(__bfloat16_as_ushort(__float2bfloat16_rn(0x1.ffp0f)), 0x3fff);
    EXPECT_EQ(__half_as_ushort(__float2half_rn(-0x1.fffp0f)), 0xbfff);
    EXPECT_EQ(__half_as_ushort(__float2half_rn(0x1.8p-24f)), 1);
    EXPECT_EQ(__half_as_ushort(__float2half_rn(1e6f)), 0x7bff);
  });
  emulator::plant({});
  run_lanes({.threads = 1},
            [] { EXPECT_EQ(__bfloat16_as_ushort(__float2bfloat16_rn(0x1.ffp0f)), 0x4000); });
}

TEST(EmulatorNumbers, Exp2IsRightToTheDocumentedBoundAndNoBetter) {
  run_lanes({.threads = 1}, [] {
    EXPECT_EQ(exp2_approximate(-kInfinity), 0);
    EXPECT_EQ(exp2_approximate(kInfinity), kInfinity);
    EXPECT_EQ(exp2_approximate(0.0f), 1);
    EXPECT_EQ(exp2_approximate(-0.0f), 1);
    EXPECT_EQ(exp2_approximate(0x1p-140f), 1);  // subnormal arguments and results are 0
    EXPECT_EQ(exp2_approximate(-127.0f), 0);
    EXPECT_TRUE(std::isnan(exp2_approximate(std::nanf(""))));
    std::mt19937 random(3);
    std::uniform_real_distribution<float> draw(-125, 127);
    double worst = 0;
    for (int i = 0; i < 100'000; ++i) {
      const float x = draw(random);
      const double exact = std::exp2(double{x});
      worst = std::max(worst, std::fabs(exp2_approximate(x) - exact) / exact);
      ASSERT_EQ(exp2_approximate(x), exp2_approximate(x));
    }
    EXPECT_LT(worst, 0x1p-22);
    EXPECT_GT(worst, 0x1p-24);
  });
}

TEST(EmulatorNumbers, SabotagedExp2LosesTheIntegerPart) {
  emulator::plant({.id = "exp2_without_integer_part", .kernel = ""});
  run_lanes({.threads = 1}, [] {
    EXPECT_NEAR(exp2_approximate(-3.5f), std::exp2(0.5f), 1e-6f);
    EXPECT_EQ(exp2_approximate(-kInfinity), 0);
  });
  emulator::plant({});
}

TEST(EmulatorNumbers, MinAndMaxAreThoseOfCuda) {
  EXPECT_EQ(min(3, -4), -4);
  EXPECT_EQ(max(3u, 4u), 4u);
  EXPECT_EQ(max(1.0f, std::nanf("")), 1.0f);
}

}  // namespace
}  // namespace sp::emulated
