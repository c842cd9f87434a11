// The run file of a replay comes back as it was written; a damaged one is refused by name.
// SPDX-License-Identifier: Apache-2.0
#include "harness/papers/replay_file.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <random>

#include "harness/papers/sha256.hpp"
#include "harness/results/hdf5_attributes.hpp"
#include "harness/results/run_file.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

ReplayRecord sample() {
  ReplayRecord record;
  record.item = "paper/item";
  record.title = "An item";
  record.paper = "Somebody 2024, arXiv:2401.00001";
  record.command_line = "seqpar reproduce paper/item";
  record.config = "tokens = \"8K\"\n";
  record.platforms = "name = \"one\"\n";
  record.software = "0.1.0 abcdef";
  ReplayRow row;
  row.label = "8K, 4 ranks";
  row.quantity = "time";
  row.unit = "ms";
  row.paper = 3.5;
  row.grade = Grade::kText;
  row.rounding = 0.05;
  row.ours = 4;
  row.band = 0.1;
  record.result.rows.push_back(judged(row));
  row.paper = ReplayRow::kNone;
  row.fitted = true;
  row.provenance = Provenance::kCounted;
  record.result.rows.push_back(judged(row));
  record.result.rows.push_back(not_checkable("all", "loss", "1", 2.7, "a training run"));
  record.result.assumption = "The wires are free.";
  record.result.findings = {"First – with a dash.", "Second."};
  record.result.curves = {
      {"Time",
       "ring",
       "tokens",
       "time (ms)",
       true,
       Provenance::kFormula,
       {1, 2, 4},
       {1.5, std::nan(""), 3}},
      {"Time", "none", "tokens", "time (ms)", false, Provenance::kSimulated, {}, {}}};
  record.result = concluded(record.result);
  return record;
}

void expect_same(double a, double b) {
  EXPECT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << a << " is not " << b;
}

class ReplayFile : public testing::Test {
 protected:
  std::string written(const ReplayRecord& record) {
    const std::string path = directory_.file("replay.h5");
    write_replay(path, record, capture_environment());
    return path;
  }
  std::string refusal(const std::string& path) {
    try {
      read_replay(path);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.what();
    }
    return "not refused";
  }
  test::TemporaryDirectory directory_;
};

TEST_F(ReplayFile, ComesBackAsItWasWritten) {
  const ReplayRecord record = sample();
  const ReplayRecord read = read_replay(written(record));
  for (std::string ReplayRecord::* member :
       {&ReplayRecord::item, &ReplayRecord::title, &ReplayRecord::paper,
        &ReplayRecord::command_line, &ReplayRecord::config, &ReplayRecord::platforms})
    EXPECT_EQ(read.*member, record.*member);
  EXPECT_EQ(replay_key(read), replay_key(record));
  EXPECT_EQ(read.result.verdict, ClaimVerdict::kNotReproduced);
  EXPECT_EQ(read.result.reason, record.result.reason);
  EXPECT_EQ(read.result.assumption, record.result.assumption);
  EXPECT_EQ(read.result.findings, record.result.findings);
  ASSERT_EQ(read.result.rows.size(), record.result.rows.size());
  for (std::size_t i = 0; i < read.result.rows.size(); ++i) {
    const ReplayRow &a = read.result.rows[i], &b = record.result.rows[i];
    for (std::string ReplayRow::* member :
         {&ReplayRow::label, &ReplayRow::quantity, &ReplayRow::unit, &ReplayRow::reason})
      EXPECT_EQ(a.*member, b.*member);
    EXPECT_EQ(a.grade, b.grade);
    EXPECT_EQ(a.provenance, b.provenance);
    EXPECT_EQ(a.fitted, b.fitted);
    EXPECT_EQ(a.verdict, b.verdict);
    for (double ReplayRow::* member :
         {&ReplayRow::paper, &ReplayRow::ours, &ReplayRow::band, &ReplayRow::rounding})
      expect_same(a.*member, b.*member);
  }
  ASSERT_EQ(read.result.curves.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    const ReplayCurve &a = read.result.curves[i], &b = record.result.curves[i];
    EXPECT_EQ(a.plot, b.plot);
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.x, b.x);
    EXPECT_EQ(a.y, b.y);
    EXPECT_EQ(a.from_paper, b.from_paper);
    EXPECT_EQ(a.provenance, b.provenance);
    EXPECT_EQ(a.xs, b.xs);
    ASSERT_EQ(a.ys.size(), b.ys.size());
    for (std::size_t point = 0; point < a.ys.size(); ++point) expect_same(a.ys[point], b.ys[point]);
  }
}

TEST_F(ReplayFile, HasNoFindingsOrCurvesIfThereAreNone) {
  ReplayRecord record = sample();
  record.result.findings.clear();
  record.result.curves.clear();
  const ReplayRecord read = read_replay(written(record));
  EXPECT_TRUE(read.result.findings.empty());
  EXPECT_TRUE(read.result.curves.empty());
}

TEST_F(ReplayFile, KeyFollowsWhateverTheNumbersDependOn) {
  const std::string key = replay_key(sample());
  for (std::string ReplayRecord::* member : {&ReplayRecord::item, &ReplayRecord::config,
                                             &ReplayRecord::platforms, &ReplayRecord::software}) {
    ReplayRecord other = sample();
    other.*member += " ";
    EXPECT_NE(replay_key(other), key);
  }
  ReplayRecord same = sample();
  same.command_line = "seqpar reproduce --all";
  EXPECT_EQ(replay_key(same), key);
}

TEST_F(ReplayFile, OfAnotherSchemaIsRefusedByName) {
  const std::string path = directory_.file("run.h5");
  write_verification_run(path, {{{"ring", "thread"}}, 1, "seqpar verify"}, capture_environment());
  EXPECT_EQ(refusal(path), path + ": schema_name is 'seqpar.run'; allowed: seqpar.replay");
  EXPECT_NE(refusal(directory_.file("missing.h5")).find("missing.h5"), std::string::npos);
}

TEST_F(ReplayFile, DamagedIsRefusedOrReadButNeverFatal) {
  const std::string path = written(sample());
  const std::vector<std::byte> bytes = test::read_bytes(path);
  std::mt19937_64 random(5);
  const std::string other = directory_.file("damaged.h5");
  int refused = 0;
  constexpr int kFiles = 60;
  for (int i = 0; i < kFiles; ++i) {
    test::write_bytes(other, test::damaged(bytes, random));
    try {
      read_replay(other);
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(std::string(error.what()).find(other), 0u) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
  EXPECT_GT(refused, kFiles / 10);
}

// The examples of FIPS 180-4 and its padding across blocks.
TEST(Sha256, OfKnownTexts) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

}  // namespace
}  // namespace sp
