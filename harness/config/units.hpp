// Units of the quantities in configuration files.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "harness/config/config.hpp"

namespace sp {

// What each unit of a dimension is worth in its base unit.
const std::map<std::string, double>& units_of(Dimension dimension);
// With a space before it; empty for plain numbers.
const char* base_unit(Dimension dimension);

}  // namespace sp
