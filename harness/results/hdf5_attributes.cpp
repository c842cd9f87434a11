// SPDX-License-Identifier: Apache-2.0
#include "harness/results/hdf5_attributes.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "harness/results/heap_text.hpp"

namespace sp::h5 {
namespace {

constexpr std::size_t kMaxStringBytes = std::size_t{1} << 20;
constexpr hssize_t kMaxListElements = hssize_t{1} << 20;

void require(bool condition, const std::string& message) {
  if (!condition) throw Error(ErrorKind::kUsage, message);
}

std::string read_string(hid_t attribute, hid_t type, const std::string& action) {
  const bool variable = check(H5Tis_variable_str(type), ErrorKind::kUsage, action) > 0;
  const std::size_t bytes = variable ? H5T_VARIABLE : H5Tget_size(type);
  require(variable || bytes <= kMaxStringBytes, fmt::format("cannot {}: too long", action));
  const Handle memory = string_type(bytes);
  H5Tset_cset(memory, H5Tget_cset(type));  // ASCII and UTF-8 do not convert into each other
  if (!variable) {
    H5Tset_strpad(memory, H5Tget_strpad(type));
    std::string text(bytes, '\0');
    check(H5Aread(attribute, memory, text.data()), ErrorKind::kUsage, action);
    text.resize(std::min(text.find('\0'), text.size()));
    if (H5Tget_strpad(type) == H5T_STR_SPACEPAD) text.erase(text.find_last_not_of(' ') + 1);
    return text;
  }
  const auto read = [&] {
    char* chars = nullptr;
    check(H5Aread(attribute, memory, static_cast<void*>(&chars)), ErrorKind::kUsage, action);
    std::vector<std::string> text{chars == nullptr ? "" : chars};
    H5free_memory(chars);
    return text;
  };
  return read_heap_texts(action, read).at(0);
}

}  // namespace

std::vector<std::string> list_attributes(hid_t object) {
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5A_info_t*, void* to) noexcept {
    static_cast<std::vector<std::string>*>(to)->emplace_back(name);
    return 0;
  };
  check(H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names), ErrorKind::kUsage,
        "list the attributes");
  return names;
}

std::optional<Value> read_attribute(hid_t object, const std::string& name) {
  const std::string action = "read attribute " + name;
  if (check(H5Aexists(object, name.c_str()), ErrorKind::kUsage, action) == 0) return std::nullopt;
  const Handle attribute =
      own(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose, ErrorKind::kUsage, action);
  const Handle type = own(H5Aget_type(attribute), H5Tclose, ErrorKind::kUsage, action);
  const Handle space = own(H5Aget_space(attribute), H5Sclose, ErrorKind::kUsage, action);
  const auto count = check(H5Sget_simple_extent_npoints(space), ErrorKind::kUsage, action);
  const H5T_class_t kind = H5Tget_class(type);
  const bool integer = kind == H5T_INTEGER || kind == H5T_ENUM;
  require(count == 1 || (integer && count > 1 && count <= kMaxListElements),
          fmt::format("attribute {} holds {} elements; allowed: one", name, count));
  if (integer) {
    std::vector<std::int64_t> values(static_cast<std::size_t>(count));
    check(H5Aread(attribute, H5T_NATIVE_INT64, values.data()), ErrorKind::kUsage, action);
    return count == 1 ? Value(values[0]) : Value(std::move(values));
  }
  if (kind == H5T_FLOAT) {
    double value = 0;
    check(H5Aread(attribute, H5T_NATIVE_DOUBLE, &value), ErrorKind::kUsage, action);
    return value;
  }
  require(kind == H5T_STRING, fmt::format("attribute {} is neither a number nor a string", name));
  return read_string(attribute, type, action);
}

void write_attribute(hid_t object, const std::string& name, const Value& value) {
  const std::string action = "write attribute " + name;
  const auto write = [&](hid_t type, hid_t space_id, const void* data) {
    const Handle space = own(space_id, H5Sclose, ErrorKind::kEnvironment, action);
    const Handle attribute =
        own(H5Acreate2(object, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose,
            ErrorKind::kEnvironment, action);
    check(H5Awrite(attribute, type, data), ErrorKind::kEnvironment, action);
  };
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    write(H5T_NATIVE_INT64, H5Screate(H5S_SCALAR), integer);
  } else if (const auto* real = std::get_if<double>(&value)) {
    write(H5T_NATIVE_DOUBLE, H5Screate(H5S_SCALAR), real);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    const char* chars = text->c_str();
    write(string_type(H5T_VARIABLE), H5Screate(H5S_SCALAR), static_cast<const void*>(&chars));
  } else {
    const auto& list = std::get<std::vector<std::int64_t>>(value);
    const hsize_t count = list.size();
    write(H5T_NATIVE_INT64, H5Screate_simple(1, &count, nullptr), list.data());
  }
}

}  // namespace sp::h5
