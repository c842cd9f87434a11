// seqpar: the command. Data goes to stdout, talk to stderr; exit codes are verdicts.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>

#include "experiments/arguments.hpp"
#include "experiments/commands.hpp"
#include "harness/config/nearest.hpp"
#include "harness/results/build_record.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

std::string as_one_line(const std::vector<std::string>& words) {
  std::string line = "seqpar";
  for (std::size_t i = 1; i < words.size(); ++i) line += " " + words[i];
  return line;
}

// CLI11 names the argument it did not expect; add what was probably meant.
std::string suggestion(const CLI::App& app, int argc, char** argv) {
  std::vector<std::string> known;
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  if (chosen.empty()) {
    for (const CLI::App* sub : app.get_subcommands({})) known.push_back(sub->get_name());
  } else {
    for (const CLI::Option* option : chosen.front()->get_options()) {
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    }
  }
  for (int i = 1; i < argc; ++i) {
    const std::string word = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
    if (std::find(known.begin(), known.end(), word) != known.end()) continue;
    if (!chosen.empty() && !word.starts_with("--")) continue;
    const std::string near = nearest(word, known);
    if (!near.empty()) return fmt::format("; did you mean '{}'?", near);
  }
  return {};
}

// Rank of this process under a launcher; 0 without one.
std::string launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const char* rank = std::getenv(name); rank != nullptr) return rank;
  }
  return "0";
}

// One line; what the user did wrong is told once, not by every process.
int complain(const Command& command, int code, const std::string& message) {
  std::string line = message;
  std::replace(line.begin(), line.end(), '\n', ' ');
  while (!line.empty() && line.back() == ' ') line.pop_back();
  const std::string rank = launched_rank();
  if (code != kUsageError || rank == "0") {
    fmt::print(stderr, "seqpar: {}{}\n", rank == "0" ? "" : fmt::format("rank {}: ", rank), line);
    std::fflush(stderr);
  }
  if (command.abort) command.abort(code);
  return code;
}

std::string version_text() {
  const std::string dirty = build_record::kDirty;
  return fmt::format("seqpar {}, commit {}{}", build_record::kVersion, build_record::kCommit,
                     dirty == "yes" ? " with changes" : "");
}

int run(int argc, char** argv) {
  CLI::App app{"seqpar: a proving ground for sequence-parallel attention"};
  app.footer(
      "Exit codes: 0 all good, 1 a verification failed, 2 wrong usage, 3 environment, 4 "
      "performance floor missed.\n"
      "Sizes take binary suffixes: 64K is 65536.");
  app.require_subcommand(1);
  app.set_version_flag("--version", version_text, "Version and commit");
  Command command;
  command.words.assign(argv, argv + argc);
  command.line = as_one_line(command.words);
  for (const auto add :
       {add_list, add_verify, add_bench, add_simulate, add_calibrate, add_compute, add_check,
        add_sensitivity, add_reproduce, add_compare, add_report, add_env})
    add(CommandLine(&app), command);
  for (CLI::App* sub : app.get_subcommands({})) {
    for (CLI::Option* option : sub->get_options()) {
      if (option->get_type_size() > 0) option->check(refuse_empty);  // not for flags
    }
  }
  try {
    app.parse(argc, argv);
    const int code = command.run();
    // An answer that did not get out is not good.
    if (std::fflush(stdout) != 0)
      return complain(command, kEnvironmentError,
                      fmt::format("cannot write to standard output: {}", std::strerror(errno)));
    return code;
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    return complain(command, kUsageError, error.what() + suggestion(app, argc, argv));
  } catch (const Error& error) {
    return complain(command, error.kind() == ErrorKind::kUsage ? kUsageError : kEnvironmentError,
                    error.what());
  } catch (const std::bad_alloc&) {
    return complain(command, kEnvironmentError, "out of memory");
  } catch (const std::exception& error) {
    return complain(command, kEnvironmentError, error.what());
  }
}

}  // namespace
}  // namespace sp

int main(int argc, char** argv) { return sp::run(argc, argv); }
