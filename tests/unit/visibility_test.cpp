// What positions alone decide, against brute force over all pairs of random bands and runs.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/sharding/visibility.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace sp {
namespace {

constexpr int kDraws = 3000;

class VisibilityTest : public ::testing::Test {
 protected:
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(bound));
  }
  Band band() { return {below(2) == 1, below(2) == 1 ? 1 + below(25) : 0}; }
  Tokens tokens(std::int64_t largest_stride) {
    std::vector<sp::Run> runs;
    const std::int64_t count = below(4);
    for (std::int64_t i = 0; i < count; ++i) {
      runs.push_back({below(50), 1 + below(largest_stride), below(12)});
    }
    return Tokens(runs);
  }

 private:
  std::mt19937_64 random_{7};
};

// The definition of a band, written a second time.
bool sees(const Band& band, std::int64_t query, std::int64_t key) {
  const bool allowed_by_order = !band.causal || key <= query;
  return allowed_by_order && (band.window == 0 || std::abs(query - key) < band.window);
}

std::int64_t count_pairs(const Band& band, const Tokens& queries, const Tokens& keys) {
  std::int64_t pairs = 0;
  for (std::int64_t i = 0; i < queries.count(); ++i) {
    for (std::int64_t j = 0; j < keys.count(); ++j) {
      pairs += sees(band, queries.position(i), keys.position(j)) ? 1 : 0;
    }
  }
  return pairs;
}

TEST_F(VisibilityTest, BandSeesWhatItsDefinitionSays) {
  for (int draw = 0; draw < kDraws; ++draw) {
    const Band drawn = band();
    const std::int64_t query = below(60), key = below(60);
    ASSERT_EQ(drawn.sees(query, key), sees(drawn, query, key));
  }
}

TEST_F(VisibilityTest, ClassifyIsExactForRunsWithoutGapsAndSoundForAll) {
  for (int draw = 0; draw < kDraws; ++draw) {
    const Band drawn = band();
    const bool gaps = draw % 2 == 1;
    const sp::Run q{below(50), 1 + below(gaps ? 4 : 1), 1 + below(12)};
    const sp::Run k{below(50), 1 + below(gaps ? 4 : 1), 1 + below(12)};
    const std::int64_t pairs = count_pairs(drawn, Tokens({q}), Tokens({k}));
    const Visibility expected = pairs == 0                   ? Visibility::kEmpty
                                : pairs == q.count * k.count ? Visibility::kFull
                                                             : Visibility::kPartial;
    const Visibility actual = classify(drawn, q.first, q.last(), k.first, k.last());
    if (!gaps || actual != Visibility::kPartial) {
      ASSERT_EQ(actual, expected) << draw;
    }
  }
}

TEST_F(VisibilityTest, VisiblePairsCountsEveryPairOnce) {
  for (int draw = 0; draw < kDraws; ++draw) {
    const Band drawn = band();
    const Tokens queries = tokens(5), keys = tokens(5);
    ASSERT_EQ(visible_pairs(drawn, queries, keys), count_pairs(drawn, queries, keys)) << draw;
  }
}

TEST_F(VisibilityTest, VisibleRowsIsTheHullOfTheRunsThatSeeAKey) {
  for (int draw = 0; draw < kDraws; ++draw) {
    const Band drawn = band();
    const Tokens queries = tokens(1), keys = tokens(1);
    Rows expected;
    std::int64_t offset = 0;
    for (const sp::Run& run : queries.runs()) {
      const bool any = count_pairs(drawn, Tokens({run}), keys) > 0;
      if (any) expected = hull(expected, {offset, offset + run.count});
      offset += run.count;
    }
    const Rows actual = visible_rows(drawn, queries, keys);
    ASSERT_TRUE(actual == expected || (actual.empty() && expected.empty())) << draw;
    ASSERT_EQ(any_visible(drawn, queries, keys), count_pairs(drawn, queries, keys) > 0);
  }
}

TEST_F(VisibilityTest, NoRowOutsideVisibleRowsSeesAKey) {
  for (int draw = 0; draw < kDraws; ++draw) {
    const Band drawn = band();
    const Tokens queries = tokens(5), keys = tokens(5);
    const Rows rows = visible_rows(drawn, queries, keys);
    ASSERT_EQ(count_pairs(drawn, queries.slice(0, rows.begin), keys), 0);
    ASSERT_EQ(count_pairs(drawn, queries.slice(rows.end, queries.count()), keys), 0);
  }
}

TEST(Hull, HoldsBothAndIgnoresEmptyRanges) {
  EXPECT_EQ(hull({2, 4}, {7, 9}), (Rows{2, 9}));
  EXPECT_EQ(hull({3, 3}, {7, 9}), (Rows{7, 9}));
  EXPECT_EQ(hull({7, 9}, {3, 3}), (Rows{7, 9}));
}

}  // namespace
}  // namespace sp
