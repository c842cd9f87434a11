// Problem files (schema seqpar.problem, see data/README.md): what is to be computed, on disk.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "reference/problem/problem.hpp"

namespace sp {

struct ProblemFile {
  Problem problem;
  Inputs inputs;
};

// Validated. Whatever is wrong with the file ends in Error(kUsage): one line that names the file,
// the item and what is allowed. Unknown items are refused, so that a misspelt one is not ignored.
ProblemFile read_problem(const std::string& path);
// The same without the protection of a child process: for tests and fuzzing.
ProblemFile read_problem_unprotected(const std::string& path, std::int64_t file_bytes);

// Atomic; throws Error(kUsage) for an invalid problem and Error(kEnvironment) for a full disk.
void write_problem(const std::string& path, const Problem& problem, const Inputs& inputs);

}  // namespace sp
