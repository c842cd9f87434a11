// SPDX-License-Identifier: Apache-2.0
#include "harness/results/run_file.hpp"

#include <fmt/format.h>

#include <filesystem>

#include "harness/results/atomic_file.hpp"
#include "harness/results/hdf5_attributes.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr std::size_t kShortCommit = 8;
constexpr int kMostOfOneName = 1000;

// The table's columns, each attached to the axis `variant`.
class Columns {
 public:
  Columns(hid_t where, hid_t axis, const std::vector<VerificationRow>& rows)
      : where_(where), axis_(axis), rows_(rows) {}

  template <class T, class Get>
  void numbers(const std::string& name, const std::string& long_name, hid_t type, Get get) {
    std::vector<T> values;
    for (const VerificationRow& row : rows_) values.push_back(static_cast<T>(get(row)));
    const auto count = static_cast<std::int64_t>(values.size());
    const h5::Handle dataset = h5::write_dataset(where_, name, type, {&count, 1}, values.data());
    h5::write_attribute(dataset, "units", std::string("1"));
    finish(dataset, long_name);
  }
  template <class Get>
  void strings(const std::string& name, const std::string& long_name, Get get) {
    std::vector<std::string> values;
    for (const VerificationRow& row : rows_) values.push_back(get(row));
    finish(h5::write_strings(where_, name, values), long_name);
  }

 private:
  void finish(hid_t dataset, const std::string& long_name) {
    h5::write_attribute(dataset, "long_name", long_name);
    h5::attach_scale(dataset, axis_, 0);
    h5::label_axis(dataset, 0, "variant");
  }

  hid_t where_;
  hid_t axis_;
  const std::vector<VerificationRow>& rows_;
};

std::string verdict(const VerificationRow& row) {
  if (!row.passed) return "failed";
  return row.cases == 0 ? "skipped" : "passed";
}

// The axis stands in the root group because netCDF looks for dimensions in enclosing groups only.
h5::Handle write_variants(hid_t file, const std::vector<VerificationRow>& rows) {
  std::vector<std::string> names;
  for (const VerificationRow& row : rows) names.push_back(row.algorithm + "/" + row.backend);
  h5::Handle axis = h5::write_strings(file, "variant", names);
  h5::make_scale(axis, "variant");
  h5::write_attribute(axis, "long_name", std::string("algorithm and back-end"));
  return axis;
}

}  // namespace

void write_verification_run(const std::string& path, const VerificationTable& table,
                            const Environment& environment) {
  h5::Handle file = h5::create_image();
  h5::write_attribute(file, "schema_name", std::string("seqpar.run"));
  h5::write_attribute(file, "schema_version", std::string("1.0.0"));
  h5::write_attribute(file, "created_utc", environment.at("created_utc"));
  h5::write_attribute(file, "software_version", environment.at("software_version"));
  h5::write_attribute(file, "kind", std::string("measured"));
  write_environment(file, environment);
  h5::write_attribute(h5::create_group(file, "config"), "command_line", table.command_line);
  {
    const h5::Handle axis = write_variants(file, table.rows);
    const h5::Handle group = h5::create_group(file, "verification");
    Columns columns(group, axis, table.rows);
    using Row = VerificationRow;
    columns.numbers<std::int64_t>("cases", "random problems compared", H5T_NATIVE_INT64,
                                  [](const Row& row) { return row.cases; });
    columns.numbers<std::int64_t>("skipped", "problems the algorithm does not support",
                                  H5T_NATIVE_INT64, [](const Row& row) { return row.skipped; });
    columns.numbers<double>("max_error", "error of the case nearest to its limit",
                            H5T_NATIVE_DOUBLE, [](const Row& row) { return row.max_error; });
    columns.numbers<double>("limit", "largest error allowed for that case", H5T_NATIVE_DOUBLE,
                            [](const Row& row) { return row.limit; });
    columns.numbers<double>("worst_ratio", "max_error / limit", H5T_NATIVE_DOUBLE,
                            [](const Row& row) { return row.worst_ratio; });
    columns.numbers<std::uint64_t>("seed", "seed of the random problems", H5T_NATIVE_UINT64,
                                   [&](const Row&) { return table.seed; });
    columns.strings("verdict", "passed, failed or skipped", verdict);
  }
  write_file_atomically(path, h5::take_image(std::move(file)));
}

std::string run_file_path(const std::string& directory, const Environment& environment,
                          const std::string& slug) {
  std::string utc = environment.at("created_utc");
  std::erase_if(utc, [](char c) { return c == '-' || c == ':'; });
  std::string reduced;
  for (char c : slug) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const bool kept = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (kept) reduced += c;
    if (!kept && !reduced.empty() && reduced.back() != '-') reduced += '-';
  }
  while (reduced.ends_with('-')) reduced.pop_back();
  const std::string stem =
      fmt::format("{}-{}-{}", utc, environment.at("commit").substr(0, kShortCommit),
                  reduced.empty() ? "run" : reduced);
  for (int number = 1; number <= kMostOfOneName; ++number) {
    const std::string suffix = number == 1 ? "" : fmt::format("-{}", number);
    const auto path = std::filesystem::path(directory) / (stem + suffix + ".h5");
    if (!std::filesystem::exists(path)) return path.string();
  }
  throw Error(ErrorKind::kEnvironment, fmt::format("{}: too many files named {}", directory, stem));
}

}  // namespace sp
