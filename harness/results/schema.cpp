// SPDX-License-Identifier: Apache-2.0
#include "harness/results/schema.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "harness/results/hdf5_attributes.hpp"

namespace sp {
namespace {

constexpr std::int64_t kVersion = 1;

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_dimension_scale(hid_t file, const std::string& name) {
  const h5::Dataset dataset = h5::open_dataset(file, name);
  const auto value = h5::read_attribute(dataset.id, "CLASS");
  return value == h5::Value(std::string("DIMENSION_SCALE"));
}

}  // namespace

void require_usage(bool condition, const std::string& message) {
  if (!condition) throw Error(ErrorKind::kUsage, message);
}

std::optional<std::string> text_attribute(hid_t file, const std::string& name) {
  const auto value = h5::read_attribute(file, name);
  if (!value) return std::nullopt;
  const auto* text = std::get_if<std::string>(&*value);
  require_usage(text != nullptr, fmt::format("attribute {} is not a string", name));
  return *text;
}

std::optional<std::int64_t> integer_attribute(hid_t file, const std::string& name) {
  const auto value = h5::read_attribute(file, name);
  if (!value) return std::nullopt;
  if (const auto* integer = std::get_if<std::int64_t>(&*value)) return *integer;
  throw Error(ErrorKind::kUsage, fmt::format("attribute {} is not an integer", name));
}

std::optional<double> real_attribute(hid_t file, const std::string& name) {
  const auto value = h5::read_attribute(file, name);
  if (!value) return std::nullopt;
  if (const auto* integer = std::get_if<std::int64_t>(&*value)) {
    return static_cast<double>(*integer);
  }
  if (const auto* real = std::get_if<double>(&*value)) return *real;
  throw Error(ErrorKind::kUsage, fmt::format("attribute {} is not a number", name));
}

std::optional<std::vector<std::int64_t>> integers_attribute(hid_t file, const std::string& name) {
  const auto value = h5::read_attribute(file, name);
  if (!value) return std::nullopt;
  if (const auto* list = std::get_if<std::vector<std::int64_t>>(&*value)) return *list;
  if (const auto* integer = std::get_if<std::int64_t>(&*value)) return std::vector{*integer};
  throw Error(ErrorKind::kUsage, fmt::format("attribute {} is not a list of integers", name));
}

void check_schema(hid_t file, const std::string& schema) {
  const auto found = text_attribute(file, "schema");
  require_usage(found.has_value(),
                fmt::format("attribute schema is missing; required: \"{}\"", schema));
  require_usage(*found == schema,
                fmt::format("attribute schema = \"{}\"; allowed: \"{}\"", *found, schema));
  const auto version = h5::read_attribute(file, "schema_version");
  require_usage(version.has_value(),
                fmt::format("attribute schema_version is missing; required: {}", kVersion));
  require_usage(version == h5::Value(kVersion) || version == h5::Value(std::to_string(kVersion)),
                fmt::format("attribute schema_version is not supported; allowed: {}", kVersion));
}

void write_schema(hid_t file, const std::string& schema) {
  h5::write_attribute(file, "schema", schema);
  h5::write_attribute(file, "schema_version", kVersion);
}

void check_attribute_names(hid_t file, const std::vector<std::string>& allowed,
                           const std::string& where) {
  for (const std::string& name : h5::list_attributes(file)) {
    require_usage(contains(allowed, name) || name.starts_with('_'),
                  fmt::format("unknown attribute \"{}\"; allowed{}: {}", name, where,
                              fmt::join(allowed, ", ")));
  }
}

std::vector<std::string> check_dataset_names(hid_t file, const std::vector<std::string>& allowed,
                                             const std::string& where, Groups groups) {
  std::vector<std::string> present;
  for (const h5::Item& item : h5::list_items(file)) {
    if (item.kind == h5::ItemKind::kDataset && contains(allowed, item.name)) {
      present.push_back(item.name);
      continue;
    }
    if (item.kind == h5::ItemKind::kGroup && groups == Groups::kAllowed) continue;
    if (item.kind == h5::ItemKind::kDataset && is_dimension_scale(file, item.name)) continue;
    const char* what = item.kind == h5::ItemKind::kGroup ? "group" : "data set";
    if (item.kind == h5::ItemKind::kOther) what = "link";
    throw Error(ErrorKind::kUsage, fmt::format("unknown {} \"{}\"; allowed data sets{}: {}", what,
                                               item.name, where, fmt::join(allowed, ", ")));
  }
  return present;
}

}  // namespace sp
