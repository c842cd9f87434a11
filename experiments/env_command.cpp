// seqpar env: the environment record.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <memory>

#include "experiments/backends.hpp"
#include "experiments/commands.hpp"
#include "harness/results/environment.hpp"

namespace sp {

void add_env(const CommandLine& app, Command& command) {
  const CommandLine sub =
      app.subcommand("env", "What results depend on besides the source: build, machine, libraries");
  const auto json = std::make_shared<bool>(false);
  sub.flag("--json", *json, "Machine-readable output");
  sub.footer("Example: seqpar env --json");
  sub.callback([&command, json] {
    command.run = [json] {
      const Environment environment = capture_environment_with_gpus();
      const std::string text = *json ? to_json(environment) : to_text(environment);
      fmt::print("{}{}", text, text.ends_with('\n') ? "" : "\n");
      return kOk;
    };
  });
}

}  // namespace sp
