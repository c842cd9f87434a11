// SPDX-License-Identifier: Apache-2.0
#include "harness/results/run_writer.hpp"

#include <utility>

#include "harness/results/atomic_file.hpp"
#include "harness/results/hdf5_attributes.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

void attach(hid_t dataset, const std::string& long_name, const RunAxes& axes) {
  h5::write_attribute(dataset, "long_name", long_name);
  unsigned dimension = 0;
  for (const RunAxis* axis : axes) {
    h5::attach_scale(dataset, axis->scale, dimension);
    h5::label_axis(dataset, dimension++, axis->name);
  }
}

std::vector<std::int64_t> shape_of(const RunAxes& axes, std::size_t values) {
  std::vector<std::int64_t> shape;
  std::size_t size = 1;
  for (const RunAxis* axis : axes) {
    shape.push_back(axis->size);
    size *= static_cast<std::size_t>(axis->size);
  }
  SP_CHECK(size == values, "a column has one value for each point of its axes");
  return shape;
}

template <class T>
h5::Handle write_numbers(hid_t where, const std::string& name, const std::string& long_name,
                         const RunAxes& axes, const std::string& units, hid_t type,
                         const std::vector<T>& values) {
  h5::Handle dataset =
      h5::write_dataset(where, name, type, shape_of(axes, values.size()), values.data());
  h5::write_attribute(dataset, "units", units);
  attach(dataset, long_name, axes);
  return dataset;
}

RunAxis finish_axis(const std::string& name, const std::string& long_name, h5::Handle dataset,
                    std::size_t size) {
  h5::make_scale(dataset, name);
  h5::write_attribute(dataset, "long_name", long_name);
  return {name, std::move(dataset), static_cast<std::int64_t>(size)};
}

}  // namespace

RunFile begin_run(const Environment& environment, const std::string& command_line,
                  const std::string& kind) {
  h5::Handle file = h5::create_image();
  h5::write_attribute(file, "schema_name", std::string("seqpar.run"));
  h5::write_attribute(file, "schema_version", std::string("1.2.0"));
  h5::write_attribute(file, "created_utc", environment.at("created_utc"));
  h5::write_attribute(file, "software_version", environment.at("software_version"));
  h5::write_attribute(file, "kind", kind);
  write_environment(file, environment);
  h5::Handle config = h5::create_group(file, "config");
  h5::write_attribute(config, "command_line", command_line);
  return {std::move(file), std::move(config)};
}

void finish_run(const std::string& path, RunFile run) {
  {
    const h5::Handle closed = std::move(run.config);
  }
  write_file_atomically(path, h5::take_image(std::move(run.file)));
}

RunAxis write_axis(hid_t file, const std::string& name, const std::string& long_name,
                   const std::vector<std::string>& values) {
  return finish_axis(name, long_name, h5::write_strings(file, name, values), values.size());
}

RunAxis write_axis(hid_t file, const std::string& name, const std::string& long_name,
                   const std::vector<std::int64_t>& values) {
  const auto size = static_cast<std::int64_t>(values.size());
  h5::Handle dataset = h5::write_dataset(file, name, H5T_NATIVE_INT64, {&size, 1}, values.data());
  h5::write_attribute(dataset, "units", std::string("1"));
  return finish_axis(name, long_name, std::move(dataset), values.size());
}

h5::Handle write_column(hid_t where, const std::string& name, const std::string& long_name,
                        const RunAxes& axes, const std::vector<std::string>& values) {
  std::vector<const char*> chars;
  for (const std::string& value : values) chars.push_back(value.c_str());
  h5::Handle dataset =
      h5::write_dataset(where, name, h5::string_type(H5T_VARIABLE), shape_of(axes, values.size()),
                        static_cast<const void*>(chars.data()));
  attach(dataset, long_name, axes);
  return dataset;
}

h5::Handle write_column(hid_t where, const std::string& name, const std::string& long_name,
                        const RunAxes& axes, const std::string& units,
                        const std::vector<double>& values) {
  return write_numbers(where, name, long_name, axes, units, H5T_NATIVE_DOUBLE, values);
}

h5::Handle write_column(hid_t where, const std::string& name, const std::string& long_name,
                        const RunAxes& axes, const std::string& units,
                        const std::vector<std::int64_t>& values) {
  return write_numbers(where, name, long_name, axes, units, H5T_NATIVE_INT64, values);
}

h5::Handle write_column(hid_t where, const std::string& name, const std::string& long_name,
                        const RunAxes& axes, const std::string& units,
                        const std::vector<std::uint64_t>& values) {
  return write_numbers(where, name, long_name, axes, units, H5T_NATIVE_UINT64, values);
}

}  // namespace sp
