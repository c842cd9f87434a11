// One way to spoil a problem file, and what must be said about it.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "harness/results/problem_file.hpp"
#include "reference/problem/error.hpp"
#include "tests/support/files.hpp"
#include "tests/support/hdf5_edits.hpp"

namespace sp::test {

struct Malformed {
  std::string name;
  std::function<void(hid_t)> change;
  std::vector<std::string> says;
};

inline void PrintTo(const Malformed& malformed, std::ostream* out) { *out << malformed.name; }

template <class T>
void put_number(hid_t file, const char* name, hid_t type, T value) {
  put_attribute(file, name, type, &value);
}
inline void put_text(hid_t object, const char* name, const std::string& text) {
  put_fixed_string(object, name, text, H5T_STR_NULLPAD, H5T_CSET_UTF8);
}

inline void expect_message(const Error& error, const Malformed& malformed) {
  const std::string what = error.what();
  EXPECT_EQ(error.kind(), ErrorKind::kUsage) << what;
  for (const std::string& part : malformed.says) {
    EXPECT_NE(what.find(part), std::string::npos) << what << " lacks " << part;
  }
}

// Once as users read files, in one line that names the file, and once without the child process,
// where the sanitizers of this process see what the child saw.
inline void expect_refused(const ProblemFile& whole, const Malformed& malformed) {
  const TemporaryDirectory directory;
  const std::string path = directory.file("problem.h5");
  write_problem(path, whole.problem, whole.inputs);
  ASSERT_NO_THROW(read_problem(path)) << "malformed before the change";
  edit(path, malformed.change);
  try {
    read_problem(path);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_TRUE(what.starts_with(path + ": ")) << what;
    EXPECT_EQ(what.find_first_of("\n\r\t"), std::string::npos) << what;
    expect_message(error, malformed);
  }
  try {
    read_problem_unprotected(path, static_cast<std::int64_t>(std::filesystem::file_size(path)));
    ADD_FAILURE() << "accepted without a child process";
  } catch (const Error& error) {
    EXPECT_FALSE(std::string(error.what()).starts_with(path));
    // Only the protected reader makes one line of a name that holds several.
    if (malformed.name != "AttributeNameOfManyLines") expect_message(error, malformed);
  }
}

}  // namespace sp::test
