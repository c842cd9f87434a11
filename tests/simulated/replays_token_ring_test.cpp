// TokenRing: the case study and its traffic come out, and who wins where against which ring.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/token_ring/comparison.hpp"
#include "harness/papers/token_ring/traced.hpp"
#include "tests/simulated/replay_fixture.hpp"

namespace sp {
namespace {

using test::replay;

constexpr const char* kTwoChannel = "ring_two_channel/zigzag";
constexpr std::int64_t kTokens = 24000, kHeads = 32, kGrouped = 8;

TEST(TokenRingCaseStudy, AgreesButForOneBarAndOneMerge) {
  const ReplayResult result = replay(kTokenRingCaseStudy);
  std::set<std::string> missed;
  int judged = 0;
  for (const ReplayRow& row : result.rows) {
    EXPECT_FALSE(std::isnan(row.paper)) << row.label << ", " << row.quantity;
    judged += row.verdict != ClaimVerdict::kContext;
    if (row.verdict == ClaimVerdict::kNotReproduced) missed.insert(row.label + ": " + row.quantity);
  }
  EXPECT_EQ(result.rows.size(), 53u);
  EXPECT_EQ(judged, 43);
  EXPECT_EQ(missed, (std::set<std::string>{"token_ring, picture: exchange of queries in step 1",
                                           "ring: shortest merge"}));
}

// The band of the platform is what its file says it is.
TEST(TokenRingCaseStudy, HasTheBandOfTheProfilesOtherDevices) {
  double worst = 0;
  int rows = 0;
  for (const ReplayRow& row : replay(kTokenRingCaseStudy).rows) {
    const bool device = row.label.starts_with("ring, device ") && !row.label.ends_with('0') &&
                        !row.quantity.starts_with("end");
    if (!device && row.label != "one device") continue;
    EXPECT_FALSE(row.fitted);
    ++rows;
    worst = std::max(worst, std::abs(row.paper / row.ours - 1));
  }
  EXPECT_EQ(rows, 23);
  const double band = find_platform("a10_pcie").band;
  EXPECT_LE(worst, band);
  EXPECT_GT(worst, band - 0.01);
}

TEST(TokenRingTraffic, IsThePapersByteForByte) {
  const ReplayResult result = replay(kTokenRingTraffic);
  EXPECT_EQ(result.verdict, ClaimVerdict::kReproduced) << result.reason;
  EXPECT_EQ(result.rows.size(), 85u);
}

TEST(TracedForward, MeasuresExchangesAndEnds) {
  const Problem problem = softmax_problem({1, 4096, 8, 8, 64, 64}, DType::kF16, true);
  const TracedForward run(find_platform("a10_pcie"), "ring/zigzag", problem, 4);
  EXPECT_EQ(run.kernels(2, "attention").size(), 4u);
  EXPECT_EQ(run.exchange(0, "k", 3), 0);  // the last step sends nothing
  EXPECT_EQ(run.most_bytes(0, "k", 0), 1024 * 8 * 64 * 2);
  EXPECT_GT(run.exchange(0, "k", 0), run.most_bytes(0, "k", 0) / 12.9e9);
  EXPECT_LT(run.end_of_last(0, "attention"), run.end(0));
  EXPECT_LE(run.end(0), run.prediction().forward.time_s);
  EXPECT_THROW(TracedForward(find_platform("a10_pcie"), "no/such", problem, 4), Error);
}

TEST(TokenRingControls, TheCaseStudyShowsTheSecondChannel) {
  Stopwatch cards(find_platform("a10_pcie"), kHeads, 128);
  const auto advantage = [&](Stopwatch& watch, const char* over, Passes passes) {
    return watch.advantage(over, 4, kTokens, kHeads, passes);
  };
  EXPECT_GT(advantage(cards, kRing, Passes::kForward), 1.1);
  EXPECT_LT(advantage(cards, kTwoChannel, Passes::kForward), 0.95);
  EXPECT_GT(advantage(cards, kTwoChannel, Passes::kBoth), 1.05);
  EXPECT_LT(cards.sent(kTokenRing, 4, kTokens, kHeads, Passes::kForward),
            cards.sent(kRing, 4, kTokens, kHeads, Passes::kForward));
  EXPECT_EQ(cards.sent(kTwoChannel, 4, kTokens, kHeads, Passes::kBoth),
            cards.sent(kRing, 4, kTokens, kHeads, Passes::kBoth));
  Platform platform = find_platform("a10_pcie");
  platform.comm.channel_bandwidth = 0;
  Stopwatch wires(platform, kHeads, 128);
  EXPECT_LT(advantage(wires, kRing, Passes::kForward), 0.95);
}

TEST(TokenRingControls, NeedsAMeshAndAsManyKeyHeadsAsQueryHeads) {
  Stopwatch mesh(find_platform("a100_mesh"), kHeads, 128);
  Stopwatch ports(find_platform("a100_nvlink"), kHeads, 128);
  constexpr std::int64_t kLength = 16384;
  EXPECT_GT(mesh.advantage(kRing, 8, kLength, kHeads, Passes::kForward), 1.2);
  EXPECT_LT(ports.advantage(kRing, 8, kLength, kHeads, Passes::kForward), 1);
  EXPECT_LT(mesh.advantage(kRing, 8, kLength, kGrouped, Passes::kForward), 1);
  EXPECT_LT(mesh.advantage(kRing, 8, kLength, kGrouped, Passes::kBoth), 1);
}

TEST(TokenRingControls, FindsWhereTimesCross) {
  Stopwatch cards(find_platform("a10_pcie"), kHeads, 128);
  const std::vector<std::int64_t> lengths{4096, 16384, 65536, 131072};
  const auto range = faster_range(cards, kRing, 4, lengths, kHeads, Passes::kForward);
  ASSERT_TRUE(range.has_value());
  EXPECT_TRUE(range->from_first);
  EXPECT_FALSE(range->to_last);
  EXPECT_GT(range->to, 30000);
  EXPECT_LT(range->to, 50000);
  const auto at = [&](double factor) {
    const auto tokens = static_cast<std::int64_t>(factor * static_cast<double>(range->to));
    return cards.advantage(kRing, 4, tokens, kHeads, Passes::kForward);
  };
  EXPECT_GT(at(0.97), 1);
  EXPECT_LT(at(1.03), 1);
  EXPECT_FALSE(faster_range(cards, kTwoChannel, 4, lengths, kHeads, Passes::kForward).has_value());
}

}  // namespace
}  // namespace sp
