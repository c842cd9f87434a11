// The run file of a replay: data/results/<utc>-<commit>-<paper>-<item>.h5 (data/README.md).
//
//   attributes        schema_name = "seqpar.replay", schema_version, created_utc, software_version,
//                     software, kind = "simulated", item, title, paper, verdict, reason,
//                     assumption, config_sha256, command_line
//   /row              axis (int64 0..n-1, dimension scale "row"); along it:
//     /label /quantity /unit /grade /provenance /verdict /reason   variable-length strings
//     /paper_value /ours /error /band /rounding                    float64, NaN where there is none
//     /fitted                                                      int64, 0 or 1
//   /findings         strings, axis /finding
//   /curves/<nnn>     group per curve: attributes plot, name, x_label, y_label, from_paper
//                     (0 or 1), provenance; data sets x (dimension scale) and y
//   /config/toml      verbatim text of the config; /config/platform of the platform
//   /environment      as in every run file
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "harness/papers/replay.hpp"
#include "harness/results/environment.hpp"

namespace sp {

struct ReplayRecord {
  std::string item, title, paper, command_line;
  std::string config, platforms;  // verbatim
  std::string software;           // what computed it: version, commit, build
  ReplayResult result;
};

void write_replay(const std::string& path, const ReplayRecord& record,
                  const Environment& environment);
// Throws Error(kUsage) that names the file if it is damaged or of another schema.
ReplayRecord read_replay(const std::string& path);
// What identifies a finished piece of a sweep: item, config, platforms and software version.
std::string replay_key(const ReplayRecord& record);

}  // namespace sp
