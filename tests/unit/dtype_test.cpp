// SPDX-License-Identifier: Apache-2.0
#include "reference/problem/dtype.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

TEST(F16, RoundTripsEveryValue) {
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const f16 value{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(value);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(to_float(to_f16(wide))));
    } else {
      ASSERT_EQ(to_f16(wide).bits, value.bits) << bits;
    }
  }
}

TEST(F16, AgreesWithTheCompilersHalfForRandomBitPatterns) {
  std::uint32_t state = 12345;
  for (int i = 0; i < 2'000'000; ++i) {
    state = state * 1664525u + 1013904223u;
    const auto value = __builtin_bit_cast(float, state);
    if (std::isnan(value)) continue;
    const auto expected = __builtin_bit_cast(std::uint16_t, static_cast<_Float16>(value));
    ASSERT_EQ(to_f16(value).bits, expected) << value;
  }
}

TEST(BF16, RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f).bits, to_bf16(1.0f).bits);       // tie, down to even
  EXPECT_EQ(to_float(to_bf16(1.0f + 3 * 0x1p-8f)), 1.0f + 0x1p-6f);  // tie, up to even
  EXPECT_EQ(to_float(to_bf16(1.0f + 0x1.02p-8f)), 1.0f + 0x1p-7f);   // above the tie
  EXPECT_TRUE(std::isinf(to_float(to_bf16(std::numeric_limits<float>::max()))));
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(DType, NamesAreParsedAndUnknownOnesListWhatIsAllowed) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64}) {
    EXPECT_EQ(parse_dtype(name_of(type)), type);
  }
  try {
    parse_dtype("fp32");
    FAIL() << "an unknown name was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find("f32, bf16, f16, f64"), std::string::npos);
  }
}

}  // namespace
}  // namespace sp
