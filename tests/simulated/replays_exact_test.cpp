// Replays without simulation: formulas, counts, the verdicts of every item, and that a falsified
// paper value is found.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <sstream>

#include "harness/config/shipped.hpp"
#include "harness/papers/counted.hpp"
#include "harness/papers/formula.hpp"
#include "harness/papers/replay.hpp"
#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

const std::string kRoot = shipped("").string();

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_FALSE(text.str().empty()) << path;
  return text.str();
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  if (at != std::string::npos) text.replace(at, from.size(), to);
  return text;
}

using Verdicts = std::array<int, 3>;  // reproduced, not reproduced, not checkable

Verdicts verdicts_of(const ReplayResult& result) {
  Verdicts verdicts{};
  for (const ReplayRow& row : result.rows) {
    if (row.verdict == ClaimVerdict::kReproduced) ++verdicts[0];
    if (row.verdict == ClaimVerdict::kNotReproduced) ++verdicts[1];
    if (row.verdict == ClaimVerdict::kNotCheckable) ++verdicts[2];
  }
  return verdicts;
}

ReplayResult replayed(const std::string& id, const std::string& config) {
  const ReplayItem* item = find_replay(id);
  if (item == nullptr) throw Error(ErrorKind::kUsage, "no item " + id);
  return run_replay(*item, config, {});
}

std::string config_of(const std::string& id) {
  return kRoot + "/experiments/configs/" + id + ".toml";
}

TEST(Formula, KeepsThePrecedenceOfOperators) {
  const Symbols symbols{{"N", 4}, {"h_kv", 3}, {"B", 2}};
  EXPECT_EQ(evaluate("0", symbols), 0);
  EXPECT_EQ(evaluate("2*(N-1)*B", symbols), 12);
  EXPECT_EQ(evaluate("8/N/B", symbols), 1);
  EXPECT_EQ(evaluate("10 - N - B", symbols), 4);
  EXPECT_EQ(evaluate("B*N^2 + h_kv/N", symbols), 32.75);
  EXPECT_EQ(evaluate("2*(N-1)/N*12*B^2", symbols), 72);
}

TEST(Formula, RefusesWhatIsNotOne) {
  for (const char* text :
       {"", "2*", "(N", "N)", "N N", "x", "2**N", "N^", "N $", "about N", "2*-N"})
    EXPECT_THROW(evaluate(text, {{"N", 4}}), Error) << text;
  EXPECT_THROW(evaluate(std::string(100000, '('), {}), Error);
  try {
    evaluate("2*M", {{"N", 4}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find("'M' has no value"), std::string::npos);
  }
}

TEST(Counted, LockstepWorkHasItsClosedForms) {
  for (const int ranks : {1, 2, 3, 8}) {
    EXPECT_DOUBLE_EQ(lockstep_blocks(Sharding::kContiguous, ranks), ranks - 0.5);
    EXPECT_DOUBLE_EQ(lockstep_blocks(Sharding::kStriped, ranks), ranks / 2.0);
    EXPECT_DOUBLE_EQ(lockstep_blocks(Sharding::kZigzag, ranks), ranks / 2.0);
  }
}

TEST(Counted, RefusesWhatCannotBeCounted) {
  const Problem problem = softmax_problem({1, 64, 3, 3, 8, 8}, DType::kF32, false);
  EXPECT_THROW(count("ring/spiral", problem, {.size = 2}), Error);
  EXPECT_THROW(count("ulysses", problem, {.size = 2}), Error);  // 3 heads
  Problem broken = problem;
  broken.shape.G = 2;
  EXPECT_THROW(count("rsa", broken, {.size = 2}), Error);
  broken = problem;
  broken.shape.N = std::int64_t{1} << 40;
  EXPECT_THROW(count("rsa", broken, {.size = 2}), Error);
  const Counted two = count("ring/contiguous", problem, {.size = 2});
  EXPECT_EQ(two.most.forward.bytes_sent, 2 * 32 * 3 * 8 * 4);
  EXPECT_EQ(two.total.forward.bytes_sent, 2 * two.most.forward.bytes_sent);
}

struct Expected {
  const char* id;
  Verdicts verdicts;
  ClaimVerdict verdict;
};

// What is not reproduced here are errata of the papers, each with its reason.
constexpr Expected kExpected[] = {
    {"rsa/communication", {80, 4, 0}, ClaimVerdict::kNotReproduced},
    {"rsa/memory", {34, 16, 0}, ClaimVerdict::kNotReproduced},
    {"rsa/table4", {3, 0, 22}, ClaimVerdict::kReproduced},
    {"rsa/claims", {12, 0, 2}, ClaimVerdict::kReproduced},
    {"ring_attention/table1", {10, 3, 0}, ClaimVerdict::kNotReproduced},
    {"ring_attention/table2", {8, 2, 0}, ClaimVerdict::kNotReproduced},
    {"ring_attention/table3", {43, 9, 13}, ClaimVerdict::kNotReproduced},
    {"ring_attention/figure5", {54, 0, 0}, ClaimVerdict::kReproduced},
    {"ring_attention/overlap", {3, 2, 0}, ClaimVerdict::kNotReproduced},
    {"striped/theoretical", {137, 0, 0}, ClaimVerdict::kReproduced},
    {"lwm/lockstep", {5, 0, 0}, ClaimVerdict::kReproduced},
    {"lwm/meshes", {67, 3, 0}, ClaimVerdict::kNotReproduced},
    {"lwm/decode", {8, 1, 0}, ClaimVerdict::kNotReproduced},
    {"lasp1/communication", {31, 0, 12}, ClaimVerdict::kReproduced},
    {"lasp2/communication", {43, 6, 0}, ClaimVerdict::kNotReproduced},
};

TEST(ExactReplays, HaveTheirVerdicts) {
  for (const Expected& expected : kExpected) {
    const ReplayResult result = replayed(expected.id, config_of(expected.id));
    EXPECT_EQ(verdicts_of(result), expected.verdicts) << expected.id;
    EXPECT_EQ(result.verdict, expected.verdict) << expected.id;
    EXPECT_FALSE(result.findings.empty()) << expected.id;
    for (const ReplayRow& row : result.rows) {
      if (row.verdict == ClaimVerdict::kReproduced || row.verdict == ClaimVerdict::kContext) {
        EXPECT_TRUE(std::isfinite(row.ours)) << expected.id << ": " << row.label;
      }
      // Without a calibration nothing is allowed but the paper's own rounding.
      if (std::string(expected.id) != "rsa/table4") {
        EXPECT_EQ(row.band, 0) << row.label;
      }
    }
  }
}

TEST(ExactReplays, AreTheSameTwice) {
  for (const char* id : {"rsa/claims", "lasp2/communication"}) {
    const ReplayResult once = replayed(id, config_of(id)), twice = replayed(id, config_of(id));
    ASSERT_EQ(once.rows.size(), twice.rows.size());
    for (std::size_t i = 0; i < once.rows.size(); ++i) {
      EXPECT_EQ(once.rows[i].quantity, twice.rows[i].quantity);
      if (!std::isnan(once.rows[i].ours)) {
        EXPECT_EQ(once.rows[i].ours, twice.rows[i].ours);
      }
    }
  }
}

struct Falsified {
  const char *id, *key, *table;  // the config's key and the table that it names
  const char *from, *to;         // the first such text of the table
  int more;                      // rows that are no longer reproduced
};

constexpr Falsified kFalsified[] = {
    {"rsa/communication", "table", "rsa_communication", ",6*(N-1)", ",4*(N-1)", 10},
    {"rsa/memory", "table", "rsa_memory", "16*A*Z*H + 4*B*Z*L*A/N", "12*A*Z*H + 4*B*Z*L*A/N", 8},
    {"rsa/table4", "table", "rsa_table4", "8490.75", "8790.75", 1},
    {"rsa/claims", "crossovers", "rsa_crossovers", "32*H", "64*H", 1},
    {"ring_attention/table1", "table", "ring_attention_table1", "4*b*c*h", "2*b*c*h", 1},
    {"ring_attention/table2", "table", "ring_attention_table2", "6.6e3", "6.9e3", 1},
    {"ring_attention/table3", "table", "ring_attention_table3", "2048K,256", "2048K,512", 1},
    {"ring_attention/figure5", "table", "ring_attention_figure5", "362.3", "363.3", 1},
    {"ring_attention/overlap", "table", "ring_attention_overlap", "4*c*d", "8*c*d", 1},
    {"striped/theoretical", "table", "striped_speedups", ",4096,1.22", ",4096,1.24", 1},
    {"lwm/lockstep", "table", "lwm_lockstep", "2*P-1", "2*P-2", 5},
    {"lwm/meshes", "geometry", "lwm_geometry", ",4,1.0,262144", ",4,1.0,131072", 1},
    {"lwm/decode", "table", "lwm_decode", " on,32", " on,24", 1},
    {"lasp1/communication", "table", "lasp1_communication", "LASP,B*d^2/h", "LASP,B*d^2", 4},
    {"lasp2/communication", "table", "lasp2_communication", "66.06", "1.05", 1},
};

TEST(ExactReplays, FindAFalsifiedPaperValue) {
  const test::TemporaryDirectory directory;
  for (const Falsified& falsified : kFalsified) {
    const std::string table = std::string(falsified.table) + ".csv";
    const std::string csv = text_of(kRoot + "/data/papers/" + table);
    std::ofstream(directory.file(table)) << replaced(csv, falsified.from, falsified.to);
    const std::string key = std::string(falsified.key) + " = \"";
    std::ofstream(directory.file("config.toml"))
        << replaced(text_of(config_of(falsified.id)), key + falsified.table + "\"",
                    key + directory.file(table) + "\"");
    const Verdicts honest = verdicts_of(replayed(falsified.id, config_of(falsified.id)));
    const ReplayResult result = replayed(falsified.id, directory.file("config.toml"));
    const Verdicts found = verdicts_of(result);
    EXPECT_EQ(found[1], honest[1] + falsified.more) << falsified.id << ": " << falsified.to;
    EXPECT_EQ(found[0], honest[0] - falsified.more) << falsified.id << ": " << falsified.to;
    EXPECT_EQ(result.verdict, ClaimVerdict::kNotReproduced) << falsified.id;
  }
}

TEST(ExactReplays, RefuseAConfigThatTheyDoNotUnderstand) {
  const test::TemporaryDirectory directory;
  const auto with = [&](const char* id, const std::string& from, const std::string& to) {
    std::ofstream(directory.file("config.toml")) << replaced(text_of(config_of(id)), from, to);
    return directory.file("config.toml");
  };
  EXPECT_THROW(replayed("rsa/claims", with("rsa/claims", "hidden", "hiddenn")), Error);
  EXPECT_THROW(replayed("rsa/claims", with("rsa/claims", "near = 0.05", "near = 5")), Error);
  EXPECT_THROW(replayed("lwm/lockstep", with("lwm/lockstep", "table", "extra = 1\ntable")), Error);
  EXPECT_THROW(replayed("lwm/meshes", with("lwm/meshes", "\"GiB\"", "\"GB/s\"")), Error);
  EXPECT_THROW(replayed("ring_attention/table3",
                        with("ring_attention/table3", "name = \"30B\"", "name = \"31B\"")),
               Error);
  EXPECT_THROW(
      replayed("striped/theoretical", with("striped/theoretical", "striped_models", "no_models")),
      Error);
}

}  // namespace
}  // namespace sp
