// The files that come with the program: platforms, papers' tables, configurations of replays, the
// report's script.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace sp {

// "experiments/platforms" -> where it lies: below ../share/seqpar of an installed program, wherever
// that was moved; of a built one, in the source tree.
std::filesystem::path shipped(const std::string& relative);

}  // namespace sp
