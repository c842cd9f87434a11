// LASP-1 and LASP-2: the replays run, and say what they are cited for.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/lasp2/layers.hpp"
#include "optimized/algorithms/lasp1.hpp"
#include "optimized/algorithms/lasp2.hpp"
#include "tests/simulated/replay_fixture.hpp"
#include "tests/simulated/sim_fixture.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

using test::count;
using test::find;
using test::replay;

TEST(Lasp1Printed, MovesWhatLasp1Moves) {
  const Problem problem = linear_problem(Module::kBasic, {1, 4096, 4, 4, 64, 64}, DType::kBF16);
  const Platform platform = test::cluster_of(8);
  const Prediction printed = simulate(platform, kLasp1Printed, problem, {.size = 8});
  const Prediction published = simulate(platform, kLasp1, problem, {.size = 8});
  ASSERT_EQ(printed.status, RowStatus::kOk) << printed.reason;
  for (std::size_t rank = 0; rank < 8; ++rank) {
    EXPECT_EQ(printed.ranks[rank].forward.bytes_sent, published.ranks[rank].forward.bytes_sent);
    EXPECT_EQ(printed.ranks[rank].backward.messages_sent,
              published.ranks[rank].backward.messages_sent);
  }
  EXPECT_GT(printed.total_s(), published.total_s());
}

TEST(StateRing, MovesWhatTheGatherMoves) {
  const Problem problem = linear_problem(Module::kBasic, {1, 4096, 4, 4, 64, 64}, DType::kBF16);
  const Platform platform = test::cluster_of(8);
  const Prediction ring = simulate(platform, kStateRing, problem, {.size = 8});
  const Prediction gather = simulate(platform, kLasp2, problem, {.size = 8});
  ASSERT_EQ(ring.status, RowStatus::kOk) << ring.reason;
  for (std::size_t rank = 0; rank < 8; ++rank) {
    EXPECT_EQ(ring.ranks[rank].forward.bytes_sent, gather.ranks[rank].forward.bytes_sent);
    EXPECT_EQ(ring.ranks[rank].backward.bytes_sent, gather.ranks[rank].backward.bytes_sent);
  }
}

std::string config_of(const ReplayItem& item) {
  std::ifstream file(test::config_path(item));
  return {std::istreambuf_iterator<char>(file), {}};
}

// With another config, for what a test has no time for.
ReplayResult replay_of(const ReplayItem& item, const std::string& text) {
  const test::TemporaryDirectory directory;
  std::ofstream(directory.file("config.toml")) << text;
  return run_replay(item, directory.file("config.toml"), {});
}

TEST(Lasp2ChainVsGather, TheGatherIsAlwaysAheadAndTheGapIsALatency) {
  SP_SKIP_MANY_RANKS();
  std::string config = config_of(kLasp2ChainVsGather);
  config = config.substr(0, config.find("ranks = ["));
  const ReplayResult result = replay_of(kLasp2ChainVsGather, config + R"(
ranks = [2, 64, 128]
tokens = ["2K", "512K", "4M"]
)");
  EXPECT_EQ(result.verdict, ClaimVerdict::kReproduced) << result.reason;
  EXPECT_EQ(count(result, ClaimVerdict::kReproduced), 2);  // above 64K tokens
  const auto time = [&](const char* id, const char* rest) {
    const std::string label = std::string(id) + ", " + rest;
    return find(result, label, "forward").ours + find(result, label, "backward").ours;
  };
  const double at_2k =
      time("lasp1", "2K tokens, 128 ranks") - time("lasp2", "2K tokens, 128 ranks");
  const double at_4m =
      time("lasp1", "4096K tokens, 128 ranks") - time("lasp2", "4096K tokens, 128 ranks");
  EXPECT_GT(at_2k, 0);
  EXPECT_LT(at_4m, 2 * at_2k);  // 2048 times the tokens
  EXPECT_GT(time("lasp1, as printed", "4096K tokens, 128 ranks"),
            5 * time("lasp1", "4096K tokens, 128 ranks"));
}

TEST(Lasp2Figure3, RingAttentionIsNotReproducedAndLasp1IsBracketed) {
  SP_SKIP_MANY_RANKS();
  // Softmax attention takes longest to simulate.
  std::string config;
  const std::string all = config_of(kLasp2Figure3), table = "[[readings]]";
  for (std::size_t from = 0; from < all.size();) {
    const std::size_t to = std::min(all.find(table, from + 1), all.size());
    const std::string part = all.substr(from, to - from);
    if (part.find("softmax") == std::string::npos && part.find("right") == std::string::npos)
      config += part;
    from = to;
  }
  const ReplayResult result = replay_of(kLasp2Figure3, config);
  EXPECT_EQ(result.verdict, ClaimVerdict::kNotReproduced);
  const auto gain = [&](const std::string& reading, const char* tokens) -> const ReplayRow& {
    return find(result, reading + ", " + tokens + " tokens", "gain of LASP-2");
  };
  const std::string left = "Ring Attention as left products of whole chunks";
  for (const char* tokens : {"512K", "2048K"}) {
    EXPECT_EQ(gain(left, tokens).verdict, ClaimVerdict::kNotReproduced);
    EXPECT_GT(gain(left, tokens).ours, 20 * gain(left, tokens).paper);
    const ReplayRow& early = gain("LASP-1 as published, the state passed on first", tokens);
    const ReplayRow& late = gain("LASP-1 as printed, output work before the send", tokens);
    EXPECT_LT(early.ours, early.paper);
    EXPECT_GT(late.ours, late.paper);
  }
  // States in a ring cost a latency, whatever the length.
  EXPECT_NEAR(gain("Ring Attention as states in a ring", "512K").ours,
              gain("Ring Attention as states in a ring", "2048K").ours, 2);
}

TEST(Lasp2Table5, SplitsAreNotFreeButForLatencyTheyAre) {
  SP_SKIP_MANY_RANKS();
  const ReplayResult result = replay(kLasp2Table5);
  EXPECT_EQ(count(result, ClaimVerdict::kNotReproduced), 3);
  EXPECT_GT(find(result, "64 pieces", "time of an iteration over the unsplit one's").ours, 100);
  EXPECT_LT(find(result, "64 pieces", "the same without latencies").ours, 0.01);
}

TEST(Lasp2Table6, MemoryFollowsTheTokensOfAGpu) {
  SP_SKIP_MANY_RANKS();
  const ReplayResult result = replay(kLasp2Table6);
  EXPECT_EQ(result.verdict, ClaimVerdict::kReproduced) << result.reason;
  EXPECT_EQ(count(result, ClaimVerdict::kReproduced), 11);
  EXPECT_EQ(count(result, ClaimVerdict::kNotCheckable), 38);
}

}  // namespace
}  // namespace sp
