// The run file of `seqpar bench` and `seqpar simulate`: raw samples, costs and verdicts on the axes variant, number of
// tokens and number of ranks (data/README.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "harness/results/bench_row.hpp"
#include "harness/results/environment.hpp"

namespace sp {

struct BenchTable {
  std::vector<BenchRow> rows{};  // every variant, length and number of ranks at most once
  int repetitions = 0;
  bool backward = true;
  std::uint64_t seed = 0;
  std::string command_line{};                                 // verbatim
  std::vector<std::pair<std::string, std::string>> config{};  // what the options resolve to
  std::string kind = "measured";                              // or "simulated"; never mixed
};

// Points of the axes that no row stands for have status `unverified` and NaN.
void write_bench_run(const std::string& path, const BenchTable& table,
                     const Environment& environment);

}  // namespace sp
