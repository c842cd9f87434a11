// seqpar report: one offline HTML page of what is stored. Python writes it (experiments/report).
// SPDX-License-Identifier: Apache-2.0
#include "experiments/report_command.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "experiments/commands.hpp"
#include "harness/config/shipped.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

constexpr const char* kDirectory = "data/results";
constexpr const char* kProbe =
    "import importlib.util as u, sys\n"
    "sys.exit(any(u.find_spec(m) is None for m in ('h5py', 'jinja2', 'matplotlib', 'numpy')))";

// Runs a program to its end, without input: its exit code, or 127 if it cannot be started.
enum class Speech { kHeard, kMuted };
int spawn(const std::vector<std::string>& words, Speech speech) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (speech == Speech::kMuted) {
    ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  }
  pid_t child = 0;
  const int failed =
      ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return 127;
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR)
      throw Error(ErrorKind::kEnvironment,
                  fmt::format("cannot wait for {}: {}", words[0], std::strerror(errno)));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The distribution's Python first: it is the one that sees the distribution's packages.
std::string find_python() {
  for (const char* python : {"/usr/bin/python3", "python3"}) {
    if (spawn({python, "-B", "-c", kProbe}, Speech::kMuted) == 0) return python;
  }
  throw Error(
      ErrorKind::kEnvironment,
      "the report needs Python 3 with h5py, jinja2, matplotlib and numpy; run: sudo apt-get "
      "install python3-h5py python3-jinja2 python3-matplotlib python3-numpy");
}

struct Options {
  std::vector<std::string> paths;
  std::string out;
};

int report(const Options& options) {
  const std::vector<std::string> paths =
      options.paths.empty() ? std::vector<std::string>{kDirectory} : options.paths;
  const std::string out =
      options.out.empty() ? std::string(kDirectory) + "/report.html" : options.out;
  const int code = run_report(paths, out);
  if (code == kOk) fmt::print("{}\n", std::filesystem::absolute(out).string());
  return code;
}

}  // namespace

int run_report(const std::vector<std::string>& paths, const std::string& out) {
  const std::string script = shipped("experiments/report/report.py").string();
  std::vector<std::string> words{find_python(), "-B", script, out};
  words.insert(words.end(), paths.begin(), paths.end());
  const int code = spawn(words, Speech::kHeard);
  if (code != kOk && code != kUsageError && code != kEnvironmentError)
    throw Error(ErrorKind::kEnvironment, fmt::format("{} ended with code {}", script, code));
  return code;
}

void add_report(const CommandLine& app, Command& command) {
  const CommandLine sub = app.subcommand("report", "One offline HTML page of stored results");
  const auto options = std::make_shared<Options>();
  sub.option(
      "paths", options->paths,
      fmt::format("Result files, timelines, or directories of them; default {}", kDirectory));
  sub.option("--out", options->out, fmt::format("The page; default {}/report.html", kDirectory));
  sub.footer("Example: seqpar report --out report.html data/results");
  sub.callback([&command, options] { command.run = [options] { return report(*options); }; });
}

}  // namespace sp
