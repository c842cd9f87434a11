// SPDX-License-Identifier: Apache-2.0
#include "harness/config/shipped.hpp"

#include <system_error>

namespace sp {
namespace {

namespace fs = std::filesystem;

fs::path root() {
  std::error_code none;
  const fs::path program = fs::read_symlink("/proc/self/exe", none);
  const fs::path installed = program.parent_path().parent_path() / "share" / "seqpar";
  return fs::is_directory(installed, none) ? installed : fs::path(SP_SOURCE_DIR);
}

}  // namespace

std::filesystem::path shipped(const std::string& relative) {
  static const fs::path found = root();
  return found / relative;
}

}  // namespace sp
