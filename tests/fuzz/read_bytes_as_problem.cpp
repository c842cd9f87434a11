// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/read_bytes_as_problem.hpp"

#include "harness/results/problem_file.hpp"
#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"

namespace sp::fuzz {

std::string read_bytes_as_problem(const std::string& path, std::span<const std::byte> bytes) {
  test::write_bytes(path, bytes);
  ProblemFile first;
  try {
    first = read_problem(path);
  } catch (const Error& error) {
    const std::string what = error.what();
    SP_CHECK(error.kind() == ErrorKind::kUsage, "not a usage error: " + what);
    SP_CHECK(what.starts_with(path + ": "), "the file is not named: " + what);
    SP_CHECK(what.find_first_of("\n\r") == std::string::npos, "more than a line: " + what);
    return what;
  }
  write_problem(path, first.problem, first.inputs);
  const ProblemFile second = read_problem(path);
  SP_CHECK(describe(first.problem) == describe(second.problem), "the problem changed");
  for (const auto tensor : {&Inputs::q, &Inputs::k, &Inputs::v, &Inputs::d_out, &Inputs::log_decay,
                            &Inputs::gamma, &Inputs::beta}) {
    SP_CHECK(test::same_tensor(first.inputs.*tensor, second.inputs.*tensor), "a tensor changed");
  }
  return "";
}

}  // namespace sp::fuzz
