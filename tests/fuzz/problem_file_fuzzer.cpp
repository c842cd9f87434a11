// libFuzzer entry: any bytes, read as a problem file, end in a problem or in a clean error.
//
// Bytes that the HDF5 library does not survive cost a child process and no more. What it refuses
// cleanly is read once more in this process, where libFuzzer sees which of our branches it reached.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <span>
#include <string>

#include "harness/results/problem_file.hpp"
#include "reference/problem/error.hpp"
#include "tests/fuzz/read_bytes_as_problem.hpp"
#include "tests/support/files.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const sp::test::TemporaryDirectory directory;
  static const std::string path = directory.file("problem.h5");
  const std::string complaint =
      sp::fuzz::read_bytes_as_problem(path, std::as_bytes(std::span(data, size)));
  if (complaint.empty() || complaint.find("the HDF5 library fails") != std::string::npos) return 0;
  try {
    sp::read_problem_unprotected(path, static_cast<std::int64_t>(size));
  } catch (const sp::Error&) {
  }
  return 0;
}
