// What all run files share: the head, axes as dimension scales, and columns that stand on them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "harness/results/environment.hpp"
#include "harness/results/hdf5.hpp"

namespace sp {

struct RunFile {
  h5::Handle file;    // in memory
  h5::Handle config;  // group; what the command was told
};
// With root attributes, environment and command line. `kind` is "measured" or "simulated".
RunFile begin_run(const Environment& environment, const std::string& command_line,
                  const std::string& kind = "measured");
// Writes it to the disk, whole or not at all. Nothing else may refer to it any more.
void finish_run(const std::string& path, RunFile run);

// Axes stand in the root group because netCDF looks for dimensions in enclosing groups only.
struct RunAxis {
  std::string name;
  h5::Handle scale;
  std::int64_t size;
};
RunAxis write_axis(hid_t file, const std::string& name, const std::string& long_name,
                   const std::vector<std::string>& values);
RunAxis write_axis(hid_t file, const std::string& name, const std::string& long_name,
                   const std::vector<std::int64_t>& values);  // unit 1

// Row-major over the axes; returned for more attributes.
using RunAxes = std::vector<const RunAxis*>;
h5::Handle write_column(hid_t where, const std::string& name, const std::string& long_name,
                        const RunAxes& axes, const std::vector<std::string>& values);
h5::Handle write_column(hid_t where, const std::string& name, const std::string& long_name,
                        const RunAxes& axes, const std::string& units,
                        const std::vector<double>& values);
h5::Handle write_column(hid_t where, const std::string& name, const std::string& long_name,
                        const RunAxes& axes, const std::string& units,
                        const std::vector<std::int64_t>& values);
h5::Handle write_column(hid_t where, const std::string& name, const std::string& long_name,
                        const RunAxes& axes, const std::string& units,
                        const std::vector<std::uint64_t>& values);

}  // namespace sp
