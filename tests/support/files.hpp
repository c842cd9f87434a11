// Small problems and results, and directories to keep them in, for the tests of files.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "harness/results/problem_file.hpp"
#include "harness/results/result_file.hpp"

namespace sp::test {

// Removed with everything in it. In memory where the system has such a place: tests that write
// thousands of files must not wait for a disk.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  std::size_t count() const;  // entries, hidden ones included

 private:
  std::filesystem::path path_;
};

std::vector<std::byte> read_bytes(const std::string& path);
void write_bytes(const std::string& path, std::span<const std::byte> bytes);

HostTensor numbered(DType dtype, std::vector<std::int64_t> shape, double step);  // exact in bf16
bool same_tensor(const HostTensor& a, const HostTensor& b);  // type, shape and bits

// Every part that the schema allows: mask terms with d_out, or projections.
ProblemFile masked_problem(DType dtype);
ProblemFile projected_problem(DType dtype);
// Linear attention with everything that its module has, and a stack of four layers.
ProblemFile linear_problem(Module module, DType dtype);
ProblemFile hybrid_problem(DType dtype);
Outputs sample_outputs(const Problem& problem);

// A file as a bad disk, a bad transfer or a bad intention would leave it.
std::vector<std::byte> damaged(std::vector<std::byte> bytes, std::mt19937_64& random);

}  // namespace sp::test
