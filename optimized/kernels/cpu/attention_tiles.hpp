// What attention forward and backward share: the scores of one tile.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cpu/matrix.hpp"
#include "optimized/kernels/cpu/tile.hpp"
#include "optimized/kernels/cpu/token_tiles.hpp"

namespace sp {

// Tiles of scores are kTileRows wide in memory, whatever part of them is in use.
inline constexpr std::int64_t kScoreStride = tile::padded(kTileRows);

// scores = scale Q Kt in rows of kScoreStride, -inf where the mask hides the key.
// q [queries, depth] in rows of padded(depth), k_transposed [depth, keys] in rows of kScoreStride.
template <class T>
void masked_scores(T* scores, const T* q, const T* k_transposed, std::int64_t depth, T scale,
                   const TokenTile& queries, const TokenTile& keys, const SequenceMask& mask,
                   Visibility visibility) {
  tile::multiply(tile::Product<T>{.c = scores,
                                  .c_stride = kScoreStride,
                                  .a = q,
                                  .a_row_stride = tile::padded(depth),
                                  .a_column_stride = 1,
                                  .b = k_transposed,
                                  .b_stride = kScoreStride,
                                  .rows = queries.count(),
                                  .columns = keys.count(),
                                  .depth = depth,
                                  .accumulate = false});
  for (std::int64_t i = 0; i < queries.count(); ++i) {
    T* row = scores + i * kScoreStride;
    tile::scale(row, keys.count(), scale);
    if (visibility == Visibility::kPartial) mask.hide(row, queries.run.position(i), keys.run);
  }
}

}  // namespace sp
