// What a failed verdict points at: the owning rank of the worst element and the step whose block
// explains the error best.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "harness/compare/compare.hpp"
#include "optimized/sharding/layout.hpp"

namespace sp {

std::string diagnose(const Problem& problem, const Inputs& inputs, const Verdict& verdict,
                     const Layout& layout);

}  // namespace sp
