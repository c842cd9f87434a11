// Run files and the environment record they carry.
//
// SPDX-License-Identifier: Apache-2.0
#include "harness/results/run_file.hpp"

#include <gtest/gtest.h>
#include <hdf5_hl.h>

#include <nlohmann/json.hpp>

#include "harness/results/hdf5_attributes.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

const VerificationTable kTable{
    .rows = {{.algorithm = "ring/zigzag",
              .backend = "thread",
              .cases = 100,
              .skipped = 2,
              .max_error = 1e-7,
              .limit = 1e-6,
              .worst_ratio = 0.1,
              .passed = true},
             {.algorithm = "rsa", .backend = "mpi", .cases = 3, .worst_ratio = 7, .passed = false},
             {.algorithm = "ulysses", .backend = "mpi", .skipped = 9, .passed = true}},
    .seed = std::uint64_t{1} << 63,
    .command_line = "seqpar verify --algorithm all --seed 9223372036854775808"};

std::string text(hid_t object, const std::string& name) {
  return std::get<std::string>(h5::read_attribute(object, name).value());
}

TEST(RunFile, SaysWhatItIs) {
  const test::TemporaryDirectory directory;
  write_verification_run(directory.file("run.h5"), kTable, capture_environment());
  const h5::Handle file = h5::open_file(directory.file("run.h5"));
  EXPECT_EQ(text(file, "schema_name"), "seqpar.run");
  EXPECT_EQ(text(file, "schema_version"), "1.2.0");
  EXPECT_EQ(text(file, "kind"), "measured");
  EXPECT_EQ(text(file, "created_utc").size(), 20u);
  EXPECT_EQ(text(h5::open_group(file, "config"), "command_line"), kTable.command_line);
  const h5::Handle environment = h5::open_group(file, "environment");
  EXPECT_EQ(text(environment, "created_utc"), text(file, "created_utc"));
  EXPECT_FALSE(text(environment, "compiler").empty());
}

TEST(RunFile, EveryColumnHasItsAxisUnitsAndName) {
  const test::TemporaryDirectory directory;
  write_verification_run(directory.file("run.h5"), kTable, capture_environment());
  const h5::Handle file = h5::open_file(directory.file("run.h5"));
  const h5::Dataset variant = h5::open_dataset(file, "variant");
  EXPECT_GT(H5DSis_scale(variant.id), 0);
  const h5::Handle group = h5::open_group(file, "verification");
  for (const char* name :
       {"cases", "skipped", "max_error", "limit", "worst_ratio", "seed", "verdict"}) {
    const h5::Dataset column = h5::open_dataset(group, name);
    EXPECT_EQ(column.shape, std::vector<std::int64_t>{3}) << name;
    EXPECT_GT(H5DSis_attached(column.id, variant.id, 0), 0) << name;
    EXPECT_FALSE(text(column.id, "long_name").empty()) << name;
    if (name != std::string("verdict")) {
      EXPECT_EQ(text(column.id, "units"), "1") << name;
    }
  }
  std::vector<std::uint64_t> seeds(3);
  h5::read_dataset(h5::open_dataset(group, "seed"), H5T_NATIVE_UINT64, seeds.data());
  EXPECT_EQ(seeds[2], kTable.seed);
  std::vector<double> ratios(3);
  h5::read_dataset(h5::open_dataset(group, "worst_ratio"), H5T_NATIVE_DOUBLE, ratios.data());
  EXPECT_EQ(ratios, (std::vector<double>{0.1, 7, 0}));
}

TEST(RunFile, AnEmptyTableIsAFile) {
  const test::TemporaryDirectory directory;
  write_verification_run(directory.file("run.h5"), {}, capture_environment());
  const h5::Handle file = h5::open_file(directory.file("run.h5"));
  EXPECT_EQ(h5::open_dataset(file, "variant").shape, std::vector<std::int64_t>{0});
}

TEST(RunFile, NamesAreMadeOfTimeCommitAndSlugAndNeverTakenTwice) {
  const test::TemporaryDirectory directory;
  const Environment environment{{{"created_utc", "2026-01-31T12:34:56Z"},
                                 {"commit", "0123456789abcdef0123456789abcdef01234567"}}};
  const std::string stem = directory.file("20260131T123456Z-01234567-verify-ring-zigzag");
  const std::string first = run_file_path(directory.path(), environment, " Verify ring/zigzag!");
  EXPECT_EQ(first, stem + ".h5");
  test::write_bytes(first, {});
  EXPECT_EQ(run_file_path(directory.path(), environment, "verify ring/zigzag"), stem + "-2.h5");
  EXPECT_EQ(run_file_path("results", {}, "//"), "results/unknown-unknown-run.h5");
}

TEST(Environment, RecordsBuildMachineAndLibraries) {
  const Environment environment = capture_environment();
  for (const char* name : {"created_utc", "software_version", "commit", "commit_dirty", "compiler",
                           "flags", "build_type", "sanitizers", "cpu", "cores", "memory", "os",
                           "hdf5", "highway", "fmt", "mpi"}) {
    EXPECT_TRUE(std::any_of(environment.entries.begin(), environment.entries.end(),
                            [&](const auto& entry) { return entry.first == name; }))
        << name;
  }
  const std::string commit = environment.at("commit");
  EXPECT_TRUE(commit == "unknown" || commit.size() == 40) << commit;
  EXPECT_EQ(environment.at("hdf5"), h5::library_version());
  EXPECT_EQ(environment.at("no such entry"), "unknown");
}

TEST(Environment, TextAndJsonHaveTheSameEntriesInOrder) {
  const Environment environment = capture_environment();
  const std::string lines = to_text(environment);
  const auto json = nlohmann::ordered_json::parse(to_json(environment));
  ASSERT_EQ(json.size(), environment.entries.size());
  EXPECT_EQ(static_cast<std::size_t>(std::count(lines.begin(), lines.end(), '\n')), json.size());
  std::size_t position = 0;
  for (const auto& [name, value] : json.items()) {
    EXPECT_EQ(environment.entries[position].first, name);
    EXPECT_EQ(environment.entries[position].second, value.get<std::string>());
    ++position;
  }
}

}  // namespace
}  // namespace sp
