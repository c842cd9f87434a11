// Attributes of HDF5 objects, as freely typed as other programs write them.
//
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "harness/results/hdf5.hpp"

namespace sp::h5 {

// What an attribute holds: any integer or Boolean, any float, any string; scalar or one element.
// Only integers may come as longer one-dimensional arrays.
using Value = std::variant<std::int64_t, double, std::string, std::vector<std::int64_t>>;
std::optional<Value> read_attribute(hid_t object, const std::string& name);
void write_attribute(hid_t object, const std::string& name, const Value& value);
std::vector<std::string> list_attributes(hid_t object);

}  // namespace sp::h5
