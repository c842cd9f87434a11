// Formulas of papers, evaluated as data/papers prints them: 2*(N-1)*B*Z*(L/N)*A.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

namespace sp {

using Symbols = std::map<std::string, double>;

// Numbers, symbols, + - * / ^ and parentheses, in double precision; blanks do not matter. Throws
// Error(kUsage) that names the formula for anything else and for a symbol without a value.
double evaluate(const std::string& formula, const Symbols& symbols);

}  // namespace sp
