// A run of an algorithm under a witness.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "harness/run/backend.hpp"
#include "optimized/algorithms/algorithm.hpp"

namespace sp {

// Runs the problem again and says which kernel or message of which rank was the first to be wrong (witness.hpp). Empty:
// each did what it should with what it was given. exact: the right results, or null.
std::string first_wrong(Backend& backend, const Rig& rig, const Algorithm& algorithm,
                        const Problem& problem, const Inputs& inputs, const World& world,
                        const Outputs* exact);

}  // namespace sp
