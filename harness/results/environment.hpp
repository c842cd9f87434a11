// The environment record: what a number depends on besides the source it came from.
//
// Printed by `seqpar env` and stored as group /environment in every file that holds results.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/results/hdf5.hpp"

namespace sp {

struct Environment {
  std::vector<std::pair<std::string, std::string>> entries;  // ordered: name, value
  const std::string& at(std::string_view name) const;        // "unknown" when there is none
};

Environment capture_environment();                       // of this build, machine and moment
std::string to_text(const Environment& environment);     // aligned lines "name  value"
std::string to_json(const Environment& environment);     // one object, in the same order
void write_environment(hid_t file, const Environment&);  // group /environment, string attributes

}  // namespace sp
