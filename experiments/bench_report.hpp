// What `seqpar bench` prints: a table in the style of nccl-tests, or JSON in that of Google
// Benchmark.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "harness/results/bench_file.hpp"
#include "harness/results/environment.hpp"

namespace sp {

// Numbers as the tables print them; "-" for NaN.
std::string number(double value, int decimals);
std::string figure(double value);  // four significant digits

// What % of ideal compares, in words.
extern const char* const kIdealInWords;

// The last line of a table: "# 3 of 4 rows measured, 1 skipped", of rows that were `done` or not.
std::string status_line(const std::vector<BenchRow>& rows, const char* done);

std::string bench_text(const BenchTable& table, const Environment& environment);
std::string bench_json(const BenchTable& table, const Environment& environment);

}  // namespace sp
