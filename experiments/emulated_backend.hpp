// The back-end `emulated`, which most commands do without: it is a program of its own,
// `seqpar-emulated`, the same command with the emulator and the GPU half linked in. The plain program
// hands over to it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "harness/run/gpu_backend.hpp"

namespace sp {

// Why there is no emulator and what builds it; empty: there is one.
std::string emulator_absence();
// `words` are those of this process. In the plain program this does not return: the process goes on
// as seqpar-emulated with the same words. Throws Error(kEnvironment) where that was not built.
std::unique_ptr<Backend> make_emulated_backend(std::chrono::milliseconds time_limit,
                                               Transport transport,
                                               const std::vector<std::string>& words);

}  // namespace sp
