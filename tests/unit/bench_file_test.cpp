// The run file of bench: axes, samples, and NaN where there is nothing.
//
// SPDX-License-Identifier: Apache-2.0
#include "harness/results/bench_file.hpp"

#include <gtest/gtest.h>
#include <hdf5_hl.h>

#include <cmath>

#include "harness/results/hdf5_attributes.hpp"
#include "tests/support/files.hpp"

namespace sp {
namespace {

BenchRow measured(const std::string& algorithm, std::int64_t tokens, int ranks) {
  BenchRow row{.algorithm = algorithm, .backend = "thread", .tokens = tokens, .ranks = ranks};
  row.status = RowStatus::kOk;
  row.cores = 2;
  const double size = static_cast<double>(tokens) / ranks;
  row.passes = {{.time_s = {size, 2 * size}, .waiting_s = {1, 1}, .cpu_s = {1, 1}},
                {.time_s = {3 * size, 4 * size}, .waiting_s = {1, 1}, .cpu_s = {1, 1}}};
  row.passes[1].bytes_sent = 1000 * ranks;
  row.one_rank = row.passes;
  row.busy_imbalance = {1, 1.5};
  row.flops_imbalance = 1.25;
  row.worst_ratio = 0.5;
  return row;
}

BenchTable table_of_four() {
  BenchTable table;
  table.rows = {measured("ring", 8, 1), measured("ring", 8, 2), measured("ring", 16, 2)};
  BenchRow refused{.algorithm = "ulysses", .backend = "thread", .tokens = 8, .ranks = 2};
  refused.module = "gla";
  refused.status = RowStatus::kSkipped;
  refused.reason = "heads do not divide";
  table.rows.push_back(refused);
  table.repetitions = 2;
  table.seed = std::uint64_t{1} << 63;
  table.command_line = "seqpar bench";
  table.config = {{"dtype", "f32"}};
  return table;
}

class BenchFile : public testing::Test {
 protected:
  BenchFile() { write_bench_run(path_, table_of_four(), capture_environment()); }
  std::vector<double> numbers(const std::string& group, const std::string& name) const {
    const h5::Dataset data = h5::open_dataset(h5::open_group(file(), group), name);
    std::int64_t size = 1;
    for (const std::int64_t extent : data.shape) size *= extent;
    std::vector<double> values(static_cast<std::size_t>(size));
    h5::read_dataset(data, H5T_NATIVE_DOUBLE, values.data());
    return values;
  }
  h5::Handle file() const { return h5::open_file(path_); }
  static std::string text(hid_t object, const std::string& name) {
    return std::get<std::string>(h5::read_attribute(object, name).value());
  }

 private:
  test::TemporaryDirectory directory_;
  std::string path_ = directory_.file("run.h5");
};

TEST_F(BenchFile, SaysWhatItIsAndWhatItWasTold) {
  EXPECT_EQ(text(file(), "schema_name"), "seqpar.run");
  EXPECT_EQ(text(file(), "kind"), "measured");
  const h5::Handle config = h5::open_group(file(), "config");
  EXPECT_EQ(text(config, "command_line"), "seqpar bench");
  EXPECT_EQ(text(config, "dtype"), "f32");
  EXPECT_EQ(text(config, "seed"), "9223372036854775808");
  EXPECT_FALSE(text(h5::open_group(file(), "environment"), "compiler").empty());
}

TEST(SimulatedBenchFile, IsMarkedAndHasBands) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("run.h5");
  BenchTable table = table_of_four();
  table.kind = "simulated";
  for (BenchRow& row : table.rows) row.band = 0.25;
  write_bench_run(path, table, capture_environment());
  const h5::Handle file = h5::open_file(path);
  EXPECT_EQ(std::get<std::string>(h5::read_attribute(file, "kind").value()), "simulated");
  const h5::Dataset band = h5::open_dataset(file, "band");
  std::vector<double> bands(8);
  h5::read_dataset(band, H5T_NATIVE_DOUBLE, bands.data());
  EXPECT_EQ(bands[0], 0.25);
}

TEST_F(BenchFile, EveryDataSetHasItsAxesUnitsAndName) {
  const std::vector<std::string> cell{"variant", "seq_len", "ranks"};
  const auto axes = [&](std::vector<std::string> more) {
    more.insert(more.begin(), cell.begin(), cell.end());
    return more;
  };
  const std::vector<std::string> pass = axes({"direction"});
  const std::vector<std::string> sample = axes({"direction", "repetition"});
  struct Expected {
    const char* group;
    const char* name;
    std::vector<std::string> axes;
    const char* units;  // null: text
  };
  const std::vector<Expected> all{{"/", "status", cell, "1"},
                                  {"/", "status_reason", cell, nullptr},
                                  {"/", "problem", cell, nullptr},
                                  {"samples", "time", sample, "s"},
                                  {"samples", "waiting", sample, "s"},
                                  {"samples", "cpu_time", sample, "s"},
                                  {"samples", "one_rank_time", sample, "s"},
                                  {"samples", "busy_imbalance", axes({"repetition"}), "1"},
                                  {"cost", "bytes_sent", pass, "byte"},
                                  {"cost", "messages_sent", pass, "1"},
                                  {"cost", "peak_bytes", pass, "byte"},
                                  {"cost", "flops", pass, "1"},
                                  {"cost", "flops_imbalance", cell, "1"},
                                  {"cost", "flops_ratio", cell, "1"},
                                  {"cost", "cores", cell, "1"},
                                  {"cost", "percent_of_ideal", cell, "percent"},
                                  {"verification", "verdict", cell, nullptr},
                                  {"verification", "max_error", cell, "1"},
                                  {"verification", "limit", cell, "1"},
                                  {"verification", "worst_ratio", cell, "1"}};
  const h5::Handle root = file();
  for (const Expected& expected : all) {
    SCOPED_TRACE(std::string(expected.group) + "/" + expected.name);
    const h5::Dataset data = h5::open_dataset(h5::open_group(root, expected.group), expected.name);
    ASSERT_EQ(data.shape.size(), expected.axes.size());
    for (unsigned i = 0; i < expected.axes.size(); ++i) {
      const h5::Dataset axis = h5::open_dataset(root, expected.axes[i]);
      EXPECT_GT(H5DSis_scale(axis.id), 0);
      EXPECT_GT(H5DSis_attached(data.id, axis.id, i), 0);
      EXPECT_EQ(data.shape[i], axis.shape.at(0));
    }
    EXPECT_FALSE(text(data.id, "long_name").empty());
    if (expected.units != nullptr) {
      EXPECT_EQ(text(data.id, "units"), expected.units);
    }
  }
}

TEST_F(BenchFile, SamplesStandWhereTheirRowIsAndTheRestIsNaN) {
  // [ring, ulysses] x [8, 16] x [1, 2] x [forward, backward] x 2
  const std::vector<double> times = numbers("samples", "time");
  ASSERT_EQ(times.size(), 32u);
  EXPECT_EQ(std::vector<double>(times.begin(), times.begin() + 8),
            (std::vector<double>{8, 16, 24, 32, 4, 8, 12, 16}));
  for (int i : {8, 9, 10, 11}) EXPECT_TRUE(std::isnan(times[static_cast<std::size_t>(i)])) << i;
  EXPECT_EQ(times[12], 8);
  for (std::size_t i = 16; i < 32; ++i) EXPECT_TRUE(std::isnan(times[i])) << i;
  EXPECT_EQ(numbers("cost", "bytes_sent")[3], 2000);
  EXPECT_EQ(numbers("cost", "percent_of_ideal")[1], 50);  // same times on one rank, two cores
  EXPECT_TRUE(std::isnan(numbers("cost", "percent_of_ideal")[5]));
}

TEST_F(BenchFile, StatusIsAFlagWithMeanings) {
  EXPECT_EQ(numbers("/", "status"), (std::vector<double>{0, 0, 4, 0, 4, 1, 4, 4}));
  const h5::Dataset status = h5::open_dataset(file(), "status");
  EXPECT_EQ(text(status.id, "flag_meanings"), "ok skipped oom failed unverified");
  EXPECT_EQ(
      std::get<std::vector<std::int64_t>>(h5::read_attribute(status.id, "flag_values").value()),
      (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace sp
