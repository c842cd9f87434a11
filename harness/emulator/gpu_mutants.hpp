// Faults that only GPU code has: one primitive of the machine broken in one kernel, or everywhere.
//
// The kernels' text stays as it is: a missing barrier is a barrier that does nothing, an event on
// the wrong stream is a record that goes to another one. The suite must find each.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "harness/emulator/emulator.hpp"
#include "harness/mutants/mutants.hpp"

namespace sp::emulator {

struct GpuMutant {
  Mutant mutant;  // neither kernels nor communicator are wrapped
  Sabotage sabotage;
};
std::vector<GpuMutant> gpu_mutants();

}  // namespace sp::emulator
