// Verdicts of rows and of items, the registry, and how an item is run.
// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/replay.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "harness/config/shipped.hpp"
#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

constexpr double kNaN = ReplayRow::kNone;

ReplayRow row(double paper, double ours, double band = 0, double rounding = 0) {
  ReplayRow row;
  row.label = "row";
  row.quantity = "time";
  row.paper = paper;
  row.ours = ours;
  row.band = band;
  row.rounding = rounding;
  return judged(row);
}

TEST(Rows, AreReproducedWithinTheBandOfOursOrTheRoundingOfThePaper) {
  using enum ClaimVerdict;
  EXPECT_EQ(row(2, 2).verdict, kReproduced);
  EXPECT_EQ(row(2, std::nextafter(2, 3)).verdict, kReproduced);
  EXPECT_EQ(row(2, 2.0001).verdict, kNotReproduced);
  EXPECT_EQ(row(109, 100, 0.1).verdict, kReproduced);
  EXPECT_EQ(row(91, 100, 0.1).verdict, kReproduced);
  EXPECT_EQ(row(111, 100, 0.1).verdict, kNotReproduced);
  EXPECT_EQ(row(100, 90.5, 0.1).verdict, kNotReproduced);  // the band is of ours
  EXPECT_EQ(row(1.4, 1.45, 0, 0.05).verdict, kReproduced);
  EXPECT_EQ(row(1.4, 1.451, 0, 0.05).verdict, kNotReproduced);
  EXPECT_EQ(row(0, 0).verdict, kReproduced);
  EXPECT_EQ(row(0, 1e-9).verdict, kNotReproduced);
}

TEST(Rows, SayWhyTheyAreNotReproduced) {
  EXPECT_EQ(row(2, 2).reason, "");
  EXPECT_NE(row(2, 3, 0.1).reason.find("+50 %"), std::string::npos);
  EXPECT_EQ(row(2, kNaN).verdict, ClaimVerdict::kNotReproduced);
  EXPECT_EQ(row(2, kNaN).reason, "no value came out");
  ReplayRow told;
  told.paper = 1;
  told.ours = 2;
  told.reason = "The paper counts once.";
  EXPECT_EQ(judged(told).reason, "The paper counts once.");
}

TEST(Rows, WithoutPaperValueOrUsedForFittingProveNothing) {
  EXPECT_EQ(row(kNaN, 2).verdict, ClaimVerdict::kContext);
  ReplayRow fitted;
  fitted.fitted = true;
  fitted.paper = fitted.ours = 2;
  EXPECT_EQ(judged(fitted).verdict, ClaimVerdict::kContext);
  fitted.ours = 3;
  EXPECT_EQ(judged(fitted).verdict, ClaimVerdict::kNotReproduced);
  EXPECT_EQ(judged(not_checkable("a", "b", "1", 1, "a cluster")).verdict,
            ClaimVerdict::kNotCheckable);
}

ReplayResult result(std::vector<ReplayRow> rows) {
  ReplayResult result;
  result.rows = std::move(rows);
  result.assumption = "None.";
  return concluded(result);
}

TEST(Items, EndAsTheirRows) {
  using enum ClaimVerdict;
  const ReplayRow good = row(1, 1), bad = row(1, 2), context = row(kNaN, 1);
  const ReplayRow unchecked = not_checkable("loss", "final", "1", 2, "a training run");
  EXPECT_EQ(result({good, context, unchecked}).verdict, kReproduced);
  EXPECT_EQ(result({context}).verdict, kContext);
  EXPECT_EQ(result({context, unchecked}).verdict, kNotCheckable);
  EXPECT_EQ(result({unchecked}).reason, "loss, final: a training run");
  const ReplayResult mixed = result({good, bad, unchecked, bad});
  EXPECT_EQ(mixed.verdict, kNotReproduced);
  EXPECT_EQ(mixed.reason.find("2 of 3 values; row, time: "), 0u) << mixed.reason;
}

TEST(Items, KeepAVerdictOfTheirOwn) {
  ReplayResult own;
  own.rows = {row(1, 1)};
  own.assumption = "None.";
  own.verdict = ClaimVerdict::kNotReproduced;
  own.reason = "The trend is the reverse.";
  EXPECT_EQ(concluded(own).reason, "The trend is the reverse.");
  own.reason.clear();
  EXPECT_THROW(concluded(own), Error);
}

TEST(Items, WithoutRowsAssumptionOrReasonAreBroken) {
  EXPECT_THROW(result({}), Error);
  ReplayResult silent;
  silent.rows = {row(1, 1)};
  EXPECT_THROW(concluded(silent), Error);
  ReplayRow unexplained;
  unexplained.verdict = ClaimVerdict::kNotCheckable;
  EXPECT_THROW(result({unexplained}), Error);
}

TEST(Registry, HasItemsWithConfigsAndUniqueIds) {
  std::set<std::string> ids;
  for (const ReplayItem* item : replay_items()) {
    const std::string id = item->id;
    EXPECT_TRUE(ids.insert(id).second) << id;
    EXPECT_EQ(find_replay(id), item);
    EXPECT_NE(id.find('/'), std::string::npos) << id;
    EXPECT_TRUE(std::filesystem::exists(shipped("experiments/configs/" + id + ".toml")))
        << id << " has no config";
  }
  EXPECT_EQ(find_replay("no/such"), nullptr);
}

TEST(Run, RefusesKeysThatTheItemDoesNotAskFor) {
  const ReplayItem item{
      "paper/item", "An item", "Somebody", [](const ReplayContext& context) {
        ReplayResult result;
        result.rows = {row(static_cast<double>(context.config.size("tokens", 1)), 8192)};
        result.assumption = "None.";
        context.progress(1, 1);
        return result;
      }};
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("item.toml");
  std::ofstream(path) << "tokens = \"8K\"\n";
  std::int64_t told = 0;
  const auto progress = [&](std::int64_t done, std::int64_t) { told = done; };
  EXPECT_EQ(run_replay(item, path, progress).verdict, ClaimVerdict::kReproduced);
  EXPECT_EQ(told, 1);
  EXPECT_EQ(run_replay(item, path, {}).verdict, ClaimVerdict::kReproduced);
  std::ofstream(path) << "tokens = \"8K\"\nranks = 4\n";
  EXPECT_THROW(run_replay(item, path, {}), Error);
}

}  // namespace
}  // namespace sp
