// Tokens and layouts: every token on exactly one rank, and causal work as balanced as promised.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "optimized/sharding/layout.hpp"
#include "optimized/sharding/visibility.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr Sharding kShardings[] = {Sharding::kContiguous, Sharding::kStriped, Sharding::kZigzag};
constexpr std::int64_t kLengths[] = {0, 1, 2, 3, 5, 7, 8, 13, 16, 31, 64, 97, 120, 131};
constexpr int kRanks[] = {1, 2, 3, 4, 5, 7, 8, 13};

std::vector<std::int64_t> positions_of(const Tokens& tokens) {
  std::vector<std::int64_t> positions;
  for (std::int64_t i = 0; i < tokens.count(); ++i) positions.push_back(tokens.position(i));
  return positions;
}

template <class F>
void for_each_layout(F f) {
  for (const Sharding sharding : kShardings) {
    for (const std::int64_t N : kLengths) {
      for (const int P : kRanks) {
        SCOPED_TRACE(std::string(name_of(sharding)) + " N=" + std::to_string(N) +
                     " P=" + std::to_string(P));
        f(Layout(sharding, N, P));
      }
    }
  }
}

TEST(Tokens, DropEmptyRunsAndKnowTheirPositions) {
  const Tokens tokens({{5, 1, 2}, {9, 4, 0}, {20, 3, 3}});
  EXPECT_EQ(tokens.runs().size(), 2u);
  EXPECT_EQ(positions_of(tokens), (std::vector<std::int64_t>{5, 6, 20, 23, 26}));
  EXPECT_THROW(tokens.position(5), Error);
}

TEST(Tokens, SliceTakesAnyRangeOfLocalIndices) {
  const Tokens tokens({{5, 1, 2}, {20, 3, 3}, {0, 2, 4}});
  const std::vector<std::int64_t> all = positions_of(tokens);
  for (std::int64_t begin = 0; begin <= tokens.count(); ++begin) {
    for (std::int64_t end = begin; end <= tokens.count(); ++end) {
      EXPECT_EQ(positions_of(tokens.slice(begin, end)),
                std::vector<std::int64_t>(all.begin() + begin, all.begin() + end));
    }
  }
  EXPECT_THROW(tokens.slice(3, 10), Error);
}

TEST(Tokens, AppendPutsTheOthersBehind) {
  Tokens tokens({{5, 1, 2}});
  tokens.append(Tokens({{0, 1, 1}})).append(Tokens());
  EXPECT_EQ(positions_of(tokens), (std::vector<std::int64_t>{5, 6, 0}));
  EXPECT_EQ(tokens.count(), 3);
}

TEST(Layout, PutsEveryTokenOnExactlyOneRank) {
  for_each_layout([](const Layout& layout) {
    std::vector<std::int64_t> seen;
    for (int rank = 0; rank < layout.ranks(); ++rank) {
      const std::vector<std::int64_t> mine = positions_of(layout.tokens(rank));
      EXPECT_EQ(static_cast<std::int64_t>(mine.size()), layout.count(rank));
      EXPECT_TRUE(std::is_sorted(mine.begin(), mine.end()));
      seen.insert(seen.end(), mine.begin(), mine.end());
    }
    std::sort(seen.begin(), seen.end());
    std::vector<std::int64_t> all(static_cast<std::size_t>(layout.size()));
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(seen, all);
  });
}

TEST(Layout, ShardsDifferByAtMostOneTokenPerPart) {
  for_each_layout([](const Layout& layout) {
    std::int64_t least = layout.size(), most = 0;
    for (int rank = 0; rank < layout.ranks(); ++rank) {
      least = std::min(least, layout.count(rank));
      most = std::max(most, layout.count(rank));
    }
    const std::int64_t parts = layout.sharding() == Sharding::kZigzag ? 2 : 1;
    EXPECT_LE(most - least, parts);
  });
}

TEST(Layout, OfContiguousTokensInRankOrderIsTheSequence) {
  const Layout layout(Sharding::kContiguous, 131, 8);
  std::int64_t next = 0;
  for (int rank = 0; rank < 8; ++rank) {
    for (const std::int64_t position : positions_of(layout.tokens(rank))) {
      EXPECT_EQ(position, next++);
    }
  }
}

TEST(Layout, GroupedHoldsTheShardsOfConsecutiveRanks) {
  for_each_layout([](const Layout& layout) {
    for (int group = 1; group <= layout.ranks(); ++group) {
      if (layout.ranks() % group != 0) continue;
      const Layout grouped = layout.grouped(group);
      ASSERT_EQ(grouped.ranks(), layout.ranks() / group);
      for (int rank = 0; rank < grouped.ranks(); ++rank) {
        Tokens expected;
        for (int i = 0; i < group; ++i) expected.append(layout.tokens(rank * group + i));
        EXPECT_EQ(grouped.tokens(rank), expected);
        if (layout.sharding() == Sharding::kStriped) continue;
        std::vector<std::int64_t> tokens = positions_of(expected);
        std::sort(tokens.begin(), tokens.end());
        const Layout coarser(layout.sharding(), layout.size(), grouped.ranks());
        EXPECT_EQ(tokens, positions_of(coarser.tokens(rank)));
      }
    }
  });
  EXPECT_THROW(Layout(Sharding::kZigzag, 10, 6).grouped(4), Error);
}

TEST(Layout, OfSomeRanksHoldsWhatTheyHave) {
  for_each_layout([](const Layout& layout) {
    const int P = layout.ranks();
    for (int stride = 1; stride <= P; ++stride) {
      for (int first = 0; first < P; ++first) {
        const Ranks chosen{first, stride, (P - first + stride - 1) / stride};
        const Layout some = layout.of(chosen);
        ASSERT_EQ(some.ranks(), chosen.count);
        EXPECT_EQ(some.size(), layout.size());
        for (int i = 0; i < chosen.count; ++i) EXPECT_EQ(some.tokens(i), layout.tokens(chosen[i]));
        const Layout last = some.of({chosen.count - 1, 1, 1});
        EXPECT_EQ(last.tokens(0), layout.tokens(chosen[chosen.count - 1]));
        EXPECT_EQ(some.counts().size(), static_cast<std::size_t>(chosen.count));
      }
    }
  });
  const Layout grouped = Layout(Sharding::kZigzag, 50, 6).grouped(2);
  EXPECT_EQ(grouped.of({1, 1, 2}).tokens(1), grouped.tokens(2));
  EXPECT_THROW(grouped.of({1, 1, 3}), Error);
  EXPECT_THROW(Layout(Sharding::kZigzag, 50, 6).of({0, 2, 3}).grouped(1), Error);
}

// Most minus least causal pairs of a rank's queries with the keys of the whole sequence.
std::int64_t causal_spread(const Layout& layout) {
  const Tokens all({{0, 1, layout.size()}});
  std::vector<std::int64_t> pairs;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    pairs.push_back(visible_pairs({true, 0}, layout.tokens(rank), all));
  }
  const auto [least, most] = std::minmax_element(pairs.begin(), pairs.end());
  return *most - *least;
}

// Token i sees i + 1 keys. A balanced layout promises a spread of at most N, the work of one query.
//
// Striped: the t-th tokens of two ranks lie at most P - 1 apart, so ranks with equally many tokens
// c differ by at most c (P - 1) < N, and one additional token is worth at most N.
//
// Zigzag: with W(x) = x (x + 1) / 2 the work of the first x tokens, a rank does W(b[r+1]) - W(b[r])
// + W(b[2P-r]) - W(b[2P-1-r]), where b[c] = floor(c N / 2P). Without the floor that is the same for
// every rank. Let f be the fraction that the floor takes from c N / 2P; it takes 1 - f from the
// mirrored bound, so the deviation of a rank is N (f[r] - f[r+1]) - N / 2P. As f grows by the
// fraction of N / 2P modulo 1 from bound to bound, there are two such values, N apart, and bounds
// without a fraction lead to values between them.
TEST(Layout, BalancesCausalWorkWithinOneQueryWhenStripedOrZigzag) {
  for_each_layout([](const Layout& layout) {
    if (layout.sharding() == Sharding::kContiguous) return;
    EXPECT_LE(causal_spread(layout), layout.size());
  });
}

TEST(Layout, BalancesCausalWorkAsTheFormulasSayWhenPartsAreEqual) {
  for (const std::int64_t P : kRanks) {
    const std::int64_t c = 6, N = P * c;  // c is even: zigzag chunks are equal too
    const int ranks = static_cast<int>(P);
    EXPECT_EQ(causal_spread(Layout(Sharding::kContiguous, N, ranks)), c * c * (P - 1));
    EXPECT_EQ(causal_spread(Layout(Sharding::kStriped, N, ranks)), c * (P - 1));
    EXPECT_EQ(causal_spread(Layout(Sharding::kZigzag, N, ranks)), 0);
  }
}

}  // namespace
}  // namespace sp
