// The mask as kernels are given it, one pair at a time: for yardsticks whose tables the host sees.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/kernels.hpp"

namespace sp {

// Whether the query of batch b at position `query` sees the key at position `key`.
inline bool sees(const MaskTerms& mask, std::int64_t b, std::int64_t query, std::int64_t key) {
  if (!mask.band.sees(query, key)) return false;
  if (!mask.segments.defined()) return true;
  const std::int32_t* ids = mask.segments.as<std::int32_t>() + b * mask.segments.extent(1);
  return ids[query] == ids[key];
}

}  // namespace sp
