// Run files (schema seqpar.run, see data/README.md): the outcome of one command, kept for reports.
//
// A run file is never rewritten. Dimension scales, units and names are those of the netCDF
// conventions, so that xarray opens it without our code.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/results/environment.hpp"

namespace sp {

struct VerificationRow {
  std::string algorithm{};
  std::string backend{};
  std::int64_t cases = 0;    // problems compared
  std::int64_t skipped = 0;  // problems drawn that the algorithm does not support
  double max_error = 0;      // of the case with the worst ratio
  double limit = 0;          // of the same case
  double worst_ratio = 0;    // max_error / limit
  bool passed = false;
};

struct VerificationTable {
  std::vector<VerificationRow> rows{};
  std::uint64_t seed = 0;
  std::string command_line{};  // verbatim
};

void write_verification_run(const std::string& path, const VerificationTable& table,
                            const Environment& environment);

// <directory>/<utc>-<short commit>-<slug>.h5, with -2, -3 … where the name is taken. The slug is
// reduced to lower-case letters, digits and hyphens.
std::string run_file_path(const std::string& directory, const Environment& environment,
                          const std::string& slug);

}  // namespace sp
