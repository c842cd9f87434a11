// SPDX-License-Identifier: Apache-2.0
#include "reference/problem/error.hpp"

#include <fmt/format.h>

namespace sp {

void fail_check(const char* condition, const std::string& message, std::source_location where) {
  throw Error(ErrorKind::kInternal, fmt::format("{} ({} is false at {}:{})", message, condition,
                                                where.file_name(), where.line()));
}

}  // namespace sp
