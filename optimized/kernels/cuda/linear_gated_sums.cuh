// Weighted sums over the other tokens of a tile, with one decay per token and channel between.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {

constexpr int kGatedRows = 8;

// result[r] += the sums of 8 own tokens r from `first` on, in one channel:
//   queries  sum over o <= r of weights[o][r] x[o] gates[o + 1] .. gates[r]
//   keys     sum over o >= r of weights[o][r] x[o] gates[r + 1] .. gates[o]
// Tokens outside the 8 are met in the order of their distance, so their decay is one running product
// up to the border; from there it is built up token by token.
template <bool kKeys>
__device__ void gated_sums_of_rows(Shared<float> result, Shared<const float> weights,
                                   Shared<const float> x, Shared<const float> gates, int first,
                                   int count) {
  constexpr int kRows = kGatedRows;
  float sum[kRows] = {};
  float factor = 1;
#pragma unroll 2
  for (int o = kKeys ? first + kRows : first - 1; kKeys ? o < count : o >= 0; o += kKeys ? 1 : -1) {
    const float gate = gates.load(o * kTileStride);
    if (kKeys) factor *= gate;
    const float decayed = x.load(o * kTileStride) * factor;
    if (!kKeys) factor *= gate;
    const float4 low = weights.load_as<float4>(o * kTileStride + first);
    const float4 high = weights.load_as<float4>(o * kTileStride + first + 4);
    const float row[kRows] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int r = 0; r < kRows; ++r) sum[r] += row[r] * decayed;
  }

  float gate[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) gate[r] = gates.load((first + r) * kTileStride);
  factor = 1;
#pragma unroll
  for (int step = 0; step < kRows; ++step) {
    const int r = kKeys ? kRows - 1 - step : step;
    if (!kKeys) factor *= gate[r];
    sum[r] *= factor;
    if (kKeys) factor *= gate[r];
  }
#pragma unroll
  for (int o = 0; o < kRows; ++o) {
    const int at = (first + o) * kTileStride;
    const float4 low = weights.load_as<float4>(at + first);
    const float4 high = weights.load_as<float4>(at + first + 4);
    const float row[kRows] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    float decayed = x.load(at);
    sum[o] += row[o] * decayed;
    if constexpr (kKeys) {
#pragma unroll
      for (int r = o - 1; r >= 0; --r) sum[r] += row[r] * (decayed *= gate[r + 1]);
    } else {
#pragma unroll
      for (int r = o + 1; r < kRows; ++r) sum[r] += row[r] * (decayed *= gate[r]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int at = (first + r) * kTileStride;
    result.store(at, result.load(at) + sum[r]);
  }
}

// A whole tile of sums. Each thread has one channel of 8 early and 8 late tokens, which together meet
// the same number of other tokens in every thread. `weights` [other][own], all others [token][channel].
template <bool kKeys>
__device__ void gated_sums(Shared<float> result, Shared<const float> weights, Shared<const float> x,
                           Shared<const float> gates, int count) {
  static_assert(kTileThreads == 4 * kTile && kTile == 8 * kGatedRows);
  const int channel = thread_id() % kTile, share = thread_id() / kTile;
  for (const int rows : {share, 7 - share}) {
    gated_sums_of_rows<kKeys>(result + channel, weights, x + channel, gates + channel,
                              rows * kGatedRows, count);
  }
}

}  // namespace sp::SP_GPU
