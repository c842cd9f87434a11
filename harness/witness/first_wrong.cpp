// SPDX-License-Identifier: Apache-2.0
#include "harness/witness/first_wrong.hpp"

#include "harness/run/execute.hpp"
#include "harness/witness/witness.hpp"

namespace sp {

std::string first_wrong(Backend& backend, const Rig& rig, const Algorithm& algorithm,
                        const Problem& problem, const Inputs& inputs, const World& world,
                        const Outputs* exact) {
  Witness witness(problem, inputs, exact, backend.operands());
  try {
    execute(backend, witnessed(rig, witness), algorithm, problem, inputs, world);
  } catch (const Error&) {
    // What went wrong is known already; here it is asked where.
  }
  return witness.first_wrong();
}

}  // namespace sp
