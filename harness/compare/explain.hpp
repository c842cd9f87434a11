// What a refused result looks like: patterns of wrong elements that point at a kind of bug.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "harness/compare/oracle.hpp"

namespace sp {

// Sentences, the most telling first; empty if nothing stands out. Everything that is said
// was compared with the numbers of `result`; what it may come from is said as such.
std::vector<std::string> explain(const Oracle& oracle, const Outputs& result,
                                 const Verdict& verdict, const RunHint& run);

}  // namespace sp
