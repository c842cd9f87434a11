// SPDX-License-Identifier: Apache-2.0
#include "experiments/command_line.hpp"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <utility>

namespace sp {

Option Option::show_default() const { return Option(option_->capture_default_str()); }
Option Option::required() const { return Option(option_->required()); }
Option Option::group(const std::string& title) const { return Option(option_->group(title)); }
Option Option::excludes(const Option& other) const {
  return Option(option_->excludes(other.option_));
}
Option Option::needs(const Option& other) const { return Option(option_->needs(other.option_)); }
Option Option::check(std::string (*complaint)(const std::string&)) const {
  return Option(option_->check(complaint));
}
Option Option::one_of(const std::vector<std::string>& allowed) const {
  return Option(option_->check(CLI::IsMember(allowed)));
}
Option Option::between(int least, int most) const {
  return Option(option_->check(CLI::Range(least, most)));
}

CommandLine CommandLine::subcommand(const std::string& name, const std::string& help) const {
  return CommandLine(app_->add_subcommand(name, help));
}

template <class T>
Option CommandLine::option(const std::string& names, T& value, const std::string& help) const {
  return Option(app_->add_option(names, value, help));
}
template Option CommandLine::option(const std::string&, std::string&, const std::string&) const;
template Option CommandLine::option(const std::string&, std::vector<std::string>&,
                                    const std::string&) const;
template Option CommandLine::option(const std::string&, int&, const std::string&) const;
template Option CommandLine::option(const std::string&, std::int64_t&, const std::string&) const;
template Option CommandLine::option(const std::string&, std::uint64_t&, const std::string&) const;
template Option CommandLine::option(const std::string&, double&, const std::string&) const;
template Option CommandLine::option(const std::string&, std::optional<std::int64_t>&,
                                    const std::string&) const;
template Option CommandLine::option(const std::string&, std::optional<std::uint64_t>&,
                                    const std::string&) const;

Option CommandLine::flag(const std::string& names, bool& value, const std::string& help) const {
  return Option(app_->add_flag(names, value, help));
}
void CommandLine::footer(const std::string& text) const { app_->footer(text); }
void CommandLine::callback(std::function<void()> chosen) const {
  app_->callback(std::move(chosen));
}
bool CommandLine::has(const std::string& name) const { return app_->count(name) > 0; }

}  // namespace sp
