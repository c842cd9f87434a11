// The plain program: its emulator is another program beside it.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "experiments/emulated_backend.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

std::string program() {
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "seqpar-emulated")
      .string();
}

}  // namespace

std::string emulator_absence() {
  return ::access(program().c_str(), X_OK) == 0
             ? ""
             : "./seqpar builds it for any command with --backend emulated";
}

std::unique_ptr<Backend> make_emulated_backend(std::chrono::milliseconds /*time_limit*/,
                                               Transport /*transport*/,
                                               const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execv(program().c_str(), arguments.data());
  const int error = errno;
  const std::string absence = emulator_absence();
  throw Error(ErrorKind::kEnvironment,
              absence.empty() ? fmt::format("cannot start {}: {}", program(), std::strerror(error))
                              : fmt::format("back-end emulated is not built: {}", absence));
}

}  // namespace sp
