// BurstAttention, DistFlashAttn and LASP's speeds: whole models around simulated attention.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "harness/papers/dense_model.hpp"
#include "harness/papers/items.hpp"
#include "tests/simulated/replay_fixture.hpp"
#include "tests/simulated/sim_fixture.hpp"

namespace sp {
namespace {

using test::find;
using test::replay;

TEST(DenseModel, HasTheWeightsOfLlama) {
  const DenseModel model{"LLaMA-7b", 32, 32, 32, 128, 11008};
  EXPECT_EQ(model.weights(), 6'476'005'376);
  EXPECT_EQ(model.attention_of_heads(1024, 8).shape.H, 4);
  const DenseModel odd{"33H", 32, 33, 33, 128, 11008};
  EXPECT_EQ(odd.attention_of_heads(1024, 8).shape.H, 5);  // 33 heads padded to 40
}

TEST(DenseModel, AllReduceSendsAsMuchAsGatherAndScatter) {
  const Platform platform = test::cluster_of(4);
  const std::int64_t bytes = std::int64_t{1} << 30;
  const double wire = 1.5 * static_cast<double>(bytes) / test::kPort;
  EXPECT_NEAR(all_reduce_seconds(platform, bytes, 4), wire, 0.01 * wire);
  EXPECT_NEAR(gather_scatter_seconds(platform, bytes, 4), wire, 0.01 * wire);
}

TEST(Burst, FirstTokensAreWithinTheBandOfOneFittedRow) {
  for (const ReplayItem* item : {&kBurstTable2, &kBurstTable3}) {
    int fitted = 0, judged = 0;
    for (const ReplayRow& row : replay(*item).rows) {
      const bool burst = row.label.find(", BurstAttention,") != std::string::npos;
      if (!burst || std::isnan(row.paper)) continue;
      fitted += row.fitted;
      judged += row.verdict == ClaimVerdict::kReproduced;
      EXPECT_NE(row.verdict, ClaimVerdict::kNotReproduced) << row.label << ": " << row.reason;
    }
    EXPECT_EQ(fitted + judged, 7) << item->id;
    EXPECT_EQ(fitted, item == &kBurstTable2 ? 1 : 0);
  }
}

TEST(DistFlash, NeedsMoreThanOneAdapterANode) {
  const ReplayResult result = replay(kDistFlashTable1);
  const std::string label = "DistFlashAttn, LLaMA-7B, 2 x 8 GPUs, 8K tokens each";
  EXPECT_GT(find(result, label, "iteration").ours, 2 * find(result, label, "iteration").paper);
  EXPECT_NEAR(find(result, label, "iteration with 8 adapters a node").ours,
              find(result, label, "iteration").paper, 0.3 * find(result, label, "iteration").paper);
  for (const char* tokens : {"8K", "16K", "32K"}) {
    const ReplayRow& ratio =
        find(result, std::string("Megatron-LM, LLaMA-33H, 1 x 8 GPUs, ") + tokens + " tokens each",
             "time over that of DistFlashAttn");
    EXPECT_GT(ratio.ours, 1.2) << tokens;  // heads are padded
  }
}

TEST(Lasp1Speed, IsAheadOfMegatronSp) {
  SP_SKIP_MANY_RANKS();
  const ReplayResult result = replay(kLasp1Speed);
  for (const ReplayRow& row : result.rows) {
    if (row.quantity != "LASP is faster than Megatron-SP") continue;
    EXPECT_EQ(row.verdict, ClaimVerdict::kReproduced) << row.label << ": " << row.reason;
  }
}

}  // namespace
}  // namespace sp
