// The SIMD tile primitives around lane boundaries, against scalar loops.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "optimized/kernels/cpu/tile.hpp"

namespace sp {
namespace {

constexpr std::int64_t kSizes[] = {1, 7, 8, 9, 15, 16, 17, 31, 48, 63, 64, 65, 81};

template <class T>
class Tile : public ::testing::Test {
 protected:
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();
  static constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

  // Random elements, and NaN in the padding, which must reach no result.
  std::vector<T> row(std::int64_t count, T magnitude = 1) {
    std::vector<T> values(static_cast<std::size_t>(tile::padded(count)), kNaN);
    std::uniform_real_distribution<T> uniform(-magnitude, magnitude);
    std::generate_n(values.begin(), count, [&] { return uniform(random_); });
    return values;
  }

  std::mt19937_64 random_{12345};
};

using Accumulators = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Tile, Accumulators);

// Small integers: every order of summation gives the same bits.
template <class T>
std::vector<T> integers(std::int64_t count, std::mt19937_64& random) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = static_cast<T>(static_cast<int>(random() % 17) - 8);
  return values;
}

TYPED_TEST(Tile, MultiplyEqualsThreeLoopsForEveryShapeAndStride) {
  using T = TypeParam;
  for (const std::int64_t rows : {0, 1, 5, 6, 7, 13, 64}) {
    for (const std::int64_t columns : kSizes) {
      for (const std::int64_t depth : {0, 1, 2, 65}) {
        for (const bool transposed : {false, true}) {
          const std::int64_t stride = tile::padded(columns) + 16;
          const auto a = integers<T>(rows * depth + 1, this->random_);
          const auto b = integers<T>(depth * stride + 1, this->random_);
          auto c = integers<T>(rows * stride + stride, this->random_);
          const auto before = c;
          const std::int64_t row_stride = transposed ? 1 : depth;
          const std::int64_t column_stride = transposed ? rows : 1;
          const bool accumulate = depth % 2 == 0;
          tile::multiply(tile::Product<T>{c.data(), stride, a.data(), row_stride, column_stride,
                                          b.data(), stride, rows, columns, depth, accumulate});
          for (std::int64_t i = 0; i < rows; ++i) {
            for (std::int64_t j = 0; j < columns; ++j) {
              const auto at = static_cast<std::size_t>(i * stride + j);
              T sum = accumulate ? before[at] : T{0};
              for (std::int64_t k = 0; k < depth; ++k) {
                sum += a[static_cast<std::size_t>(i * row_stride + k * column_stride)] *
                       b[static_cast<std::size_t>(k * stride + j)];
              }
              ASSERT_EQ(c[at], sum) << rows << " " << columns << " " << depth;
            }
          }
          // Beyond the padded columns and the last row nothing is written.
          for (std::size_t at = static_cast<std::size_t>(rows * stride); at < c.size(); ++at) {
            ASSERT_EQ(c[at], before[at]);
          }
        }
      }
    }
  }
}

TYPED_TEST(Tile, RowMaxLooksAtTheRowAndNotAtItsPadding) {
  for (const std::int64_t count : kSizes) {
    auto row = this->row(count);
    std::fill(row.begin() + count, row.end(), TypeParam{100});
    EXPECT_EQ(tile::row_max(row.data(), count),
              *std::max_element(row.begin(), row.begin() + count));
    std::fill_n(row.begin(), count, -this->kInfinity);
    EXPECT_EQ(tile::row_max(row.data(), count), -this->kInfinity);
  }
  EXPECT_EQ(tile::row_max(this->row(1).data(), 0), -this->kInfinity);
}

TYPED_TEST(Tile, ExpRowIsExpToAFewUlp) {
  using T = TypeParam;
  for (const std::int64_t count : kSizes) {
    const auto row = this->row(count, T{40});
    const T shift = T{0.25};
    auto result = row;
    const T sum = tile::exp_row(result.data(), count, shift);
    double expected_sum = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      const double expected = std::exp(static_cast<double>(row[i] - shift));
      ASSERT_NEAR(result[i], expected, 4 * std::numeric_limits<T>::epsilon() * expected);
      expected_sum += static_cast<double>(result[i]);
    }
    ASSERT_NEAR(sum, expected_sum, 8 * std::numeric_limits<T>::epsilon() * expected_sum);
  }
}

TYPED_TEST(Tile, ExpRowIsExactAtZeroAndFarBelowAndKeepsNaN) {
  using T = TypeParam;
  std::vector<T> row(16, -this->kInfinity);
  row[0] = 5;
  row[1] = -std::numeric_limits<T>::max();
  row[2] = -10000;
  EXPECT_EQ(tile::exp_row(row.data(), 16, T{5}), 1);
  EXPECT_EQ(row[0], 1);
  for (std::size_t i = 1; i < row.size(); ++i) EXPECT_EQ(row[i], 0);
  row[1] = this->kNaN;
  EXPECT_TRUE(std::isnan(tile::exp_row(row.data(), 2, T{0})));
  EXPECT_TRUE(std::isnan(row[1]));
}

TYPED_TEST(Tile, ScaleMultipliesEveryElement) {
  for (const std::int64_t count : kSizes) {
    auto row = this->row(count);
    const auto before = row;
    tile::scale(row.data(), count, TypeParam{0.3f});
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      ASSERT_EQ(row[i], before[i] * TypeParam{0.3f});
    }
  }
}

TYPED_TEST(Tile, SoftmaxGradientNeverLooksWhereTheProbabilityIsZero) {
  using T = TypeParam;
  for (const std::int64_t count : kSizes) {
    auto p = this->row(count);
    auto dp = this->row(count);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); i += 3) {
      p[i] = 0;
      dp[i] = i % 2 == 0 ? this->kNaN : this->kInfinity;
    }
    double delta = 0, terms = 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      if (p[i] == 0) continue;
      delta += static_cast<double>(p[i]) * static_cast<double>(dp[i]);
      terms += std::fabs(static_cast<double>(p[i]) * static_cast<double>(dp[i]));
    }
    const T sum = tile::weighted_sum(p.data(), dp.data(), count);
    ASSERT_NEAR(sum, delta, 16 * std::numeric_limits<T>::epsilon() * terms);

    auto result = dp;
    tile::softmax_gradient(result.data(), p.data(), count, T{0.5}, T{3});
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      const T expected = p[i] == 0 ? T{0} : p[i] * (dp[i] - T{0.5}) * 3;
      ASSERT_NEAR(result[i], expected, 4 * std::numeric_limits<T>::epsilon() * std::fabs(expected));
    }
  }
}

TEST(WidenRow, IsExactForEveryBitPatternAndWritesNothingElse) {
  constexpr std::size_t kCount = 65535;  // not a multiple of any lane count
  std::vector<f16> halves(kCount);
  std::vector<bf16> brains(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    halves[i].bits = brains[i].bits = static_cast<std::uint16_t>(i);
  }
  const auto check = [](const auto& source) {
    std::vector<float> wide(kCount + 1, 42.0f);
    tile::widen_row(wide.data(), source.data(), kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
      const float expected = to_float(source[i]);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(wide[i]));
      } else {
        ASSERT_EQ(__builtin_bit_cast(std::uint32_t, wide[i]),
                  __builtin_bit_cast(std::uint32_t, expected));
      }
    }
    EXPECT_EQ(wide[kCount], 42.0f);
  };
  check(halves);
  check(brains);
}

}  // namespace
}  // namespace sp
