// Result files (schema seqpar.result, see data/README.md): what an algorithm, ours or somebody
// else's, made of a problem.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/results/environment.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

struct ResultInfo {
  std::string algorithm{};
  std::string backend{};
  std::int64_t ranks = 0;
  std::vector<std::int64_t> bytes_sent_per_rank{};
  std::vector<std::int64_t> messages_per_rank{};
};

struct ResultFile {
  Outputs outputs;  // only `out` is certain to be present; the types need not agree
  ResultInfo info;  // empty where the file does not say
};

// Needs nothing but a data set `out`: files of other programs are welcome. NaN and Inf are data
// here, because judging them is the comparison's part. Otherwise as strict as read_problem().
ResultFile read_result(const std::string& path);
ResultFile read_result_unprotected(const std::string& path, std::int64_t file_bytes);

// Atomic; absent outputs are left out.
void write_result(const std::string& path, const Problem& problem, const Outputs& outputs,
                  const ResultInfo& info, const Environment& environment);

// The same of errors (schema seqpar.errors): what a result is off by, NaN where that is not known. Any tensor may be absent.
void write_errors(const std::string& path, const Problem& problem, const Outputs& errors,
                  const ResultInfo& info, const Environment& environment);

}  // namespace sp
