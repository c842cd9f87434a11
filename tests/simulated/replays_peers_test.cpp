// USP, zigzag and Striped Attention: the replays run, and say what they are cited for.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "harness/papers/items.hpp"
#include "tests/simulated/replay_fixture.hpp"

namespace sp {
namespace {

using test::count;
using test::find_by_part;
using test::replay;

TEST(Zigzag, LosesToMergesWhatItLoses) {
  const ReplayResult result = replay(kZigzagReadme);
  EXPECT_EQ(count(result, ClaimVerdict::kNotReproduced), 0) << result.reason;
  EXPECT_EQ(count(result, ClaimVerdict::kNotCheckable), 12);
  for (const char* hardware : {"H800, fwd", "A100, fwd"}) {
    EXPECT_NEAR(find_by_part(result, hardware, "ring/contiguous, share of ideal").ours, 50, 4);
    EXPECT_GT(find_by_part(result, hardware, "ring/zigzag, share of ideal").ours, 80);
    EXPECT_LT(find_by_part(result, hardware, "ring/zigzag, share of ideal").ours, 90);
  }
}

TEST(UspTable3, HasItsBestMeshBetweenTheExtremes) {
  const ReplayResult result = replay(kUspTable3);
  EXPECT_EQ(count(result, ClaimVerdict::kNotReproduced), 0) << result.reason;
  for (const char* length : {"8K", "32K", "128K"}) {
    const auto rate = [&](const char* mesh) {
      return find_by_part(result, std::string(" ") + length + ", " + mesh, "lb_ring").ours;
    };
    EXPECT_GT(rate("ulysses 2"), rate("ulysses 1")) << length;
    EXPECT_GT(rate("ulysses 2"), rate("ulysses 4")) << length;
    EXPECT_GT(rate("ulysses 4"), rate("ulysses 8")) << length;
  }
}

TEST(UspTable4, IsInconsistentAtItsLongerLength) {
  const ReplayResult result = replay(kUspTable4);
  EXPECT_EQ(result.verdict, ClaimVerdict::kNotReproduced);
  EXPECT_EQ(count(result, ClaimVerdict::kNotReproduced), 8);  // every rate of 128K
  for (const ReplayRow& row : result.rows) {
    if (row.verdict == ClaimVerdict::kNotReproduced) {
      EXPECT_GT(row.error(), 2.5) << row.label;
    }
    if (row.label.find("read as 256K") == std::string::npos) continue;
    const std::size_t at = row.label.find("ulysses");
    const double paper = find_by_part(result, "128K, " + row.label.substr(at), row.quantity).paper;
    EXPECT_LT(std::abs(row.ours / paper - 1), 0.2) << row.label;
  }
}

TEST(Striped, SpeedupsAreWhatTheyWereObserved) {
  const ReplayResult result = replay(kStripedObserved);
  EXPECT_EQ(count(result, ClaimVerdict::kNotReproduced), 0) << result.reason;
  EXPECT_EQ(std::ranges::count(result.rows, true, &ReplayRow::fitted), 7 + 4 + 7);
  EXPECT_EQ(std::ranges::count(result.rows, "observed speedup", &ReplayRow::quantity), 137);
  // Blocks of one tile save nothing, long ones nearly half of attention.
  EXPECT_LT(find_by_part(result, "A100 80GB NVLink, 7B, mesh 2x4, 16K", "observed speedup").ours,
            1);
  EXPECT_GT(find_by_part(result, "A100 80GB NVLink, 7B, mesh 2x4, 256K", "observed speedup").ours,
            1.35);
}

}  // namespace
}  // namespace sp
