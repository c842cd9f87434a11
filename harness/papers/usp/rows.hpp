// Rows of USP's tables 3 and 4 by what they measure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/papers/measured.hpp"
#include "reference/problem/error.hpp"

namespace sp {

constexpr int kUspRanks = 8;

// The end of the labels of usp_rows: "32K, ulysses 2 x ring 4".
std::string usp_mesh(std::int64_t tokens, int ulysses);

// The one of these rows, measured or replayed, with that mesh and quantity. Throws Error(kUsage)
// without it.
template <class Row>
const Row& usp_row(const std::vector<Row>& rows, const std::string& mesh,
                   const std::string& quantity) {
  for (const Row& row : rows)
    if (row.label.ends_with(", " + mesh) && row.quantity == quantity) return row;
  throw Error(ErrorKind::kUsage, "the table of USP has no " + quantity + " of " + mesh);
}

}  // namespace sp
