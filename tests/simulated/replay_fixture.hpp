// What tests ask of a replay: to run, and for one of its rows.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "harness/config/shipped.hpp"
#include "harness/papers/replay.hpp"

namespace sp::test {

inline std::string config_path(const ReplayItem& item) {
  return shipped(std::string("experiments/configs/") + item.id + ".toml").string();
}

// Begins tests of replays with a hundred ranks and more. With sanitizers every simulated rank is a
// thread, so they would take minutes; those of fewer ranks run the same code.
#ifdef SP_SANITIZED
#define SP_SKIP_MANY_RANKS() GTEST_SKIP() << "too slow with sanitizers"
#else
#define SP_SKIP_MANY_RANKS() static_cast<void>(0)
#endif

inline ReplayResult replay(const ReplayItem& item) {
  return run_replay(item, config_path(item), {});
}

inline std::int64_t count(const ReplayResult& result, ClaimVerdict verdict) {
  return std::ranges::count(result.rows, verdict, &ReplayRow::verdict);
}

// The first row of this quantity whose label `fits`.
template <class Fits>
const ReplayRow& find_row(const ReplayResult& result, const std::string& label,
                          const std::string& quantity, Fits&& fits) {
  const auto found = std::ranges::find_if(result.rows, [&](const ReplayRow& row) {
    return fits(row.label) && row.quantity == quantity;
  });
  if (found == result.rows.end()) throw std::out_of_range(label + ": " + quantity);
  return *found;
}

inline const ReplayRow& find(const ReplayResult& result, const std::string& label,
                             const std::string& quantity) {
  return find_row(result, label, quantity,
                  [&](const std::string& whole) { return whole == label; });
}

// By a part of its label.
inline const ReplayRow& find_by_part(const ReplayResult& result, const std::string& part,
                                     const std::string& quantity) {
  return find_row(result, part, quantity,
                  [&](const std::string& whole) { return whole.find(part) != whole.npos; });
}

}  // namespace sp::test
