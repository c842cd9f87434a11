// Writes one file of every schema and type into a directory: the seeds of the fuzzer, and what
// other programs must be able to open.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <string>

#include "harness/results/run_file.hpp"
#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: {} DIRECTORY\n", argv[0]);
    return 2;
  }
  const std::filesystem::path directory = argv[1];
  const auto name = [&](const std::string& kind, sp::DType dtype) {
    return (directory / fmt::format("{}_{}.h5", kind, sp::name_of(dtype))).string();
  };
  try {
    std::filesystem::create_directories(directory);
    const sp::Environment environment = sp::capture_environment();
    for (const sp::DType dtype :
         {sp::DType::kF64, sp::DType::kF32, sp::DType::kF16, sp::DType::kBF16}) {
      const sp::ProblemFile masked = sp::test::masked_problem(dtype);
      const sp::ProblemFile projected = sp::test::projected_problem(dtype);
      sp::write_problem(name("masked", dtype), masked.problem, masked.inputs);
      sp::write_problem(name("projected", dtype), projected.problem, projected.inputs);
      const sp::ProblemFile hybrid = sp::test::hybrid_problem(dtype);
      sp::write_problem(name("hybrid", dtype), hybrid.problem, hybrid.inputs);
      for (const sp::Module module : sp::kModules) {
        const sp::ProblemFile linear = sp::test::linear_problem(module, dtype);
        const std::string kind(sp::name_of(module));
        sp::write_problem(name(kind, dtype), linear.problem, linear.inputs);
        sp::write_result(name(kind + "_result", dtype), linear.problem,
                         sp::test::sample_outputs(linear.problem),
                         {.algorithm = "lasp2",
                          .backend = "thread",
                          .ranks = 1,
                          .bytes_sent_per_rank = {0},
                          .messages_per_rank = {0}},
                         environment);
      }
      sp::write_result(name("result", dtype), masked.problem,
                       sp::test::sample_outputs(masked.problem),
                       {.algorithm = "ring/zigzag",
                        .backend = "thread",
                        .ranks = 2,
                        .bytes_sent_per_rank = {10, 20},
                        .messages_per_rank = {1, 2}},
                       environment);
    }
    const sp::VerificationTable table{
        .rows = {{.algorithm = "ring/zigzag", .backend = "thread", .cases = 5, .passed = true},
                 {.algorithm = "rsa", .backend = "thread", .cases = 4, .worst_ratio = 2}},
        .seed = 7,
        .command_line = "seqpar verify --seed 7"};
    sp::write_verification_run((directory / "run.h5").string(), table, environment);
    return 0;
  } catch (const sp::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 3;
  }
}
