// SPDX-License-Identifier: Apache-2.0
#include "harness/results/run_file.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <type_traits>
#include <utility>

#include "harness/results/run_writer.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr std::size_t kShortCommit = 8;
constexpr int kMostOfOneName = 1000;

std::string verdict(const VerificationRow& row) {
  if (!row.passed) return "failed";
  return row.cases == 0 ? "skipped" : "passed";
}

}  // namespace

void write_verification_run(const std::string& path, const VerificationTable& table,
                            const Environment& environment) {
  using Row = VerificationRow;
  RunFile run = begin_run(environment, table.command_line);
  {
    const auto column = [&](auto get) {
      std::vector<std::decay_t<decltype(get(Row{}))>> values;
      for (const Row& row : table.rows) values.push_back(get(row));
      return values;
    };
    const RunAxis axis =
        write_axis(run.file, "variant", "algorithm and back-end",
                   column([](const Row& row) { return row.algorithm + "/" + row.backend; }));
    const h5::Handle group = h5::create_group(run.file, "verification");
    write_column(group, "cases", "random problems compared", {&axis}, "1",
                 column([](const Row& row) { return row.cases; }));
    write_column(group, "skipped", "problems the algorithm does not support", {&axis}, "1",
                 column([](const Row& row) { return row.skipped; }));
    write_column(group, "max_error", "error of the case nearest to its limit", {&axis}, "1",
                 column([](const Row& row) { return row.max_error; }));
    write_column(group, "limit", "largest error allowed for that case", {&axis}, "1",
                 column([](const Row& row) { return row.limit; }));
    write_column(group, "worst_ratio", "max_error / limit", {&axis}, "1",
                 column([](const Row& row) { return row.worst_ratio; }));
    write_column(group, "seed", "seed of the random problems", {&axis}, "1",
                 column([&](const Row&) { return table.seed; }));
    write_column(group, "verdict", "passed, failed or skipped", {&axis}, column(verdict));
  }
  finish_run(path, std::move(run));
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
