// The mask on the device: what tiles of tokens, and single tokens, see of each other.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "optimized/kernels/cuda/views.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp::SP_GPU {

// Positions are below 2^31, so their distances fit into int.
struct Mask {
  bool causal = false;
  int window = std::numeric_limits<int>::max();  // |i - j| < window
  Global<const int> ids;                         // segments [B, N]; null: none
  std::int64_t sequence_stride = 0;
  std::int64_t position_stride = 0;

  explicit Mask(const MaskTerms& terms) : causal(terms.band.causal) {
    if (terms.band.window > 0) {
      window = static_cast<int>(std::min<std::int64_t>(terms.band.window, window));
    }
    if (!terms.segments.defined()) return;
    SP_CHECK(terms.segments.dtype() == DType::kI32, "segment ids are i32");
    ids = Global<const int>(terms.segments.as<int>());
    sequence_stride = terms.segments.stride(0);
    position_stride = terms.segments.stride(1);
  }

  // By the smallest (x) and largest (y) positions of two tiles. Segments only hide more.
  __device__ Visibility classify(int2 queries, int2 keys) const {
    const int gap = max(keys.x - queries.y, queries.x - keys.y);
    if ((causal && keys.x > queries.y) || gap >= window) return Visibility::kEmpty;
    const int farthest = max(queries.y - keys.x, keys.y - queries.x);
    const bool inside = (!causal || keys.y <= queries.x) && farthest < window;
    return inside && !ids ? Visibility::kFull : Visibility::kPartial;
  }

  __device__ bool band_sees(int query, int key) const {
    const int distance = query - key;
    return (!causal || distance >= 0) && abs(distance) < window;
  }

  // Two tokens of sequence b see each other only if this is the same; 0 without segments.
  __device__ int segment(int b, int position) const {
    return ids ? ids.load(b * sequence_stride + position * position_stride) : 0;
  }
};

}  // namespace sp::SP_GPU
