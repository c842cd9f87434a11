// The report as a function, for commands that end with one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace sp {

// Writes one HTML page of the results in files and directories; returns an exit code. Throws
// Error(kEnvironment) if no Python here has the modules that it takes.
int run_report(const std::vector<std::string>& paths, const std::string& out);

}  // namespace sp
