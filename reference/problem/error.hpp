// Errors: one exception type, whose kind decides the exit code of the command line.
//
// kUsage        the caller's input is wrong (flag, file, shape): exit code 2
// kEnvironment  the world around us failed (disk, MPI, a rank that died or stalled): exit code 3
// kInternal     a contract inside seqpar was broken (SP_CHECK): exit code 3, please report
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

namespace sp {

enum class ErrorKind { kUsage, kEnvironment, kInternal };

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

[[noreturn]] void fail_check(const char* condition, const std::string& message,
                             std::source_location where = std::source_location::current());

}  // namespace sp

// Always on; cheap conditions only. The message says which contract was broken.
#define SP_CHECK(condition, message)                         \
  do {                                                       \
    if (!(condition)) ::sp::fail_check(#condition, message); \
  } while (false)
