// What flows through states of linear attention: keys that were added, and how many borders between
// two tokens each has crossed since. A decay multiplies at every border; the ledger counts them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "harness/ledger/entries.hpp"

namespace sp::ledger {

// Columns 0, 1 and 2 of a row hold the three numbers; those that follow mix them, so that every row
// of a state, and every column, is another.
inline constexpr std::int64_t kFlowColumns = 4;  // at least

struct Flow {
  std::int64_t total = 0, count = 0, borders = 0;

  void cross(std::int64_t tokens) { borders += tokens * count; }
  Flow& operator+=(const Flow& more) {
    total += more.total;
    count += more.count;
    borders += more.borders;
    return *this;
  }
  bool operator==(const Flow&) const = default;
  double column(std::int64_t column, std::int64_t feature = 0) const {
    if (column >= 3) return static_cast<double>(total + (column + feature) * count);
    return static_cast<double>(column == 0 ? total : column == 1 ? count : borders);
  }
};

}  // namespace sp::ledger
