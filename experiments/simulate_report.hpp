// What `seqpar simulate` prints: a table like that of bench, or JSON; every prediction with the
// band of its platform.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "harness/cluster/platform.hpp"
#include "harness/results/bench_file.hpp"
#include "harness/results/environment.hpp"

namespace sp {

std::string simulation_text(const BenchTable& table, const Platform& platform,
                            const Environment& environment);
std::string simulation_json(const BenchTable& table, const Platform& platform,
                            const Environment& environment);

}  // namespace sp
