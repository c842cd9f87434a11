// What the problem and result schemas have in common: typed root attributes and known names.
//
// Every function throws Error(kUsage) with one line that names the item and what is allowed.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "harness/results/hdf5.hpp"

namespace sp {

void require_usage(bool condition, const std::string& message);

std::optional<std::string> text_attribute(hid_t file, const std::string& name);
std::optional<std::int64_t> integer_attribute(hid_t file, const std::string& name);
std::optional<double> real_attribute(hid_t file, const std::string& name);
std::optional<std::vector<std::int64_t>> integers_attribute(hid_t file, const std::string& name);

// Attributes schema and schema_version = 1; a string "1" is as good.
void check_schema(hid_t file, const std::string& schema);
void write_schema(hid_t file, const std::string& schema);

// Names that begin with an underscore belong to the program that wrote the file and are skipped,
// and so are dimension scales, which name axes only. A message says `where` the allowed names hold.
void check_attribute_names(hid_t file, const std::vector<std::string>& allowed,
                           const std::string& where);
enum class Groups { kRefused, kAllowed };
std::vector<std::string> check_dataset_names(hid_t file, const std::vector<std::string>& allowed,
                                             const std::string& where,
                                             Groups groups);  // returns those present

}  // namespace sp
