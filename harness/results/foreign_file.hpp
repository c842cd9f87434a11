// Reading files that somebody else wrote, without trusting them.
//
// The HDF5 library itself crashes or loops on some damaged files, so every file is read first by a
// child process with limits on time and memory. What the child could not survive is reported as a
// corrupt file; what it refused is reported in its words; only a file that it read to the end is
// read by this process, its strings of variable length aside (heap_text.hpp).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "harness/results/heap_text.hpp"
#include "reference/problem/error.hpp"

namespace sp {

// Size of a regular file; otherwise Error(kUsage) that says what is there instead.
std::int64_t regular_file_size(const std::string& path);

// Runs `read` in a child process; returns the record of its HeapTexts if it succeeded there, and
// otherwise throws. Other threads may exist, but none of them may be using HDF5.
std::string probe_in_child(std::int64_t file_bytes, const std::function<void()>& read);

// Names in a damaged file may hold anything; a message is one line of printable text.
std::string one_line(std::string text);

// read(path, file bytes), probed first. Messages begin with the path.
template <class Read>
auto read_foreign_file(const std::string& path, Read read) {
  try {
    const std::int64_t bytes = regular_file_size(path);
    const HeapTexts texts(probe_in_child(bytes, [&] { static_cast<void>(read(path, bytes)); }));
    return read(path, bytes);
  } catch (const Error& error) {
    throw Error(error.kind(), one_line(path + ": " + error.what()));
  }
}

}  // namespace sp
