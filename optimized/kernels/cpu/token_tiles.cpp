// Cutting tokens into tiles, and classifying pairs of tiles by band and segment ids.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/token_tiles.hpp"

#include <algorithm>

namespace sp {

std::vector<TokenTile> tiles_of(const Tokens& tokens) {
  std::vector<TokenTile> tiles;
  std::int64_t begin = 0;
  for (const Run& run : tokens.runs()) {
    for (std::int64_t i = 0; i < run.count; i += kTileRows) {
      const std::int64_t count = std::min(kTileRows, run.count - i);
      tiles.push_back({begin + i, {run.position(i), run.stride, count}});
    }
    begin += run.count;
  }
  return tiles;
}

SequenceMask::SequenceMask(const MaskTerms& terms, std::int64_t b) : band_(terms.band) {
  if (!terms.segments.defined()) return;
  SP_CHECK(terms.segments.dtype() == DType::kI32, "segment ids are i32");
  ids_ = terms.segments.as<std::int32_t>() + b * terms.segments.stride(0);
  id_stride_ = terms.segments.stride(1);
}

SequenceMask::Range SequenceMask::id_range(const Run& run) const {
  Range range{id(run.first), id(run.first)};
  for (std::int64_t i = 1; i < run.count; ++i) {
    const std::int32_t value = id(run.position(i));
    range = {std::min(range.low, value), std::max(range.high, value)};
  }
  return range;
}

Visibility SequenceMask::classify(const TokenTile& queries, const TokenTile& keys) const {
  const Visibility by_band =
      sp::classify(band_, queries.run.first, queries.run.last(), keys.run.first, keys.run.last());
  if (by_band == Visibility::kEmpty || ids_ == nullptr) return by_band;
  const Range q = id_range(queries.run);
  const Range k = id_range(keys.run);
  if (q.high < k.low || k.high < q.low) return Visibility::kEmpty;
  const bool one_segment = q.low == q.high && k.low == k.high;  // and they are not disjoint
  return one_segment ? by_band : Visibility::kPartial;
}

}  // namespace sp
