// Reading what the user typed: sizes with binary suffixes, lists and ranges, algorithm ids. Every
// error names what is allowed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "optimized/algorithms/algorithm.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

// "4096", "64K", "2M", "1G" (binary). Throws Error(kUsage).
std::int64_t parse_size(const std::string& text, const char* what);
// A comma list of them.
std::vector<std::int64_t> parse_sizes(const std::string& text, const char* what);
// "8", "2,4,8", "1..9", "8:64:*2", and comma lists of these.
std::vector<int> parse_ranks(const std::string& text);
// Those that are whole nodes; the others are named on stderr where `say`. Throws if there are none.
std::vector<int> whole_nodes(const std::vector<int>& ranks, int node_size, bool say);
// "all", or a comma list of ids; unknown ids get the nearest one suggested.
std::vector<const Algorithm*> parse_algorithms(const std::string& text);
// "all", or a comma list of names.
std::vector<Module> parse_modules(const std::string& text);
// A comma list of names.
std::vector<DType> parse_dtypes(const std::string& text);
// Checks for CLI11, which lets these pass: the complaint, or nothing.
std::string refuse_empty(const std::string& text);
std::string refuse_no_seed(const std::string& text);  // else -1 and 2^64 become 2^64 - 1
std::string refuse_no_time(const std::string& text);  // a time limit: 0.001 to 1e6 seconds

}  // namespace sp
