// What a subcommand says of its words: a narrow face of CLI11, whose header costs 8 s of compilation
// in every file that includes it. Only command_line.cpp and seqpar.cpp do.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace sp {

// An option or a positional argument; a handle, valid as long as its command line.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option show_default() const;  // in --help
  Option required() const;
  Option group(const std::string& title) const;  // heading in --help
  Option excludes(const Option& other) const;
  Option needs(const Option& other) const;
  // Allowed values. `complaint` returns what is wrong with a text, or nothing.
  Option check(std::string (*complaint)(const std::string& text)) const;
  Option one_of(const std::vector<std::string>& allowed) const;
  Option between(int least, int most) const;

 private:
  CLI::Option* option_;
};

// The words after a (sub)command; a handle, too.
class CommandLine {
 public:
  explicit CommandLine(CLI::App* app) : app_(app) {}

  CommandLine subcommand(const std::string& name, const std::string& help) const;
  // `names`: "-n,--long", or "name" for a positional argument. `value` holds the default and
  // outlives the command line. T: std::string, a vector of them, int, int64, uint64, double, or an
  // optional of a number.
  template <class T>
  Option option(const std::string& names, T& value, const std::string& help) const;
  Option flag(const std::string& names, bool& value, const std::string& help) const;
  void footer(const std::string& text) const;
  void callback(std::function<void()> chosen) const;  // called when these words were typed
  bool has(const std::string& name) const;            // was typed

 private:
  CLI::App* app_;
};

}  // namespace sp
