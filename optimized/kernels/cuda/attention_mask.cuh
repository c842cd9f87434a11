// The mask inside a kernel: what a token sees, and which scores of a tile to hide.
//
// A row (of queries, or of keys) sees an interval of positions of the other side, and of these the
// tokens of its own segment. Tokens beyond the end of a tensor have the position -1, which is in no
// interval.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>

#include "optimized/kernels/cuda/attention_tile.cuh"
#include "optimized/kernels/cuda/mask.cuh"

namespace sp::SP_GPU::mma {

constexpr int kLargestPosition = std::numeric_limits<int>::max();  // also the window of no window
constexpr float kLog2E = 1.44269504088896f;
constexpr float kInfinity = __builtin_huge_valf();

enum class Side { kQueries, kKeys };

// Inclusive.
struct Interval {
  int first = 0, last = -1;
};

// What a token at `position` sees of the other side.
template <Side kSide>
__device__ Interval visible(const Mask& mask, int position) {
  const int before = position - mask.window + 1;
  const int after =
      position > kLargestPosition - mask.window ? kLargestPosition : position + mask.window - 1;
  const bool no_later = kSide == Side::kQueries && mask.causal;
  const bool no_earlier = kSide == Side::kKeys && mask.causal;
  return {no_earlier ? position : max(before, 0), no_later ? position : after};
}

// What the mask asks of a token: position and segment. Of token `first` + thread of kTokens.
constexpr int kMarkBytes = sizeof(int2);

template <int kTokens>
__device__ int2 load_mark(const Mask& mask, const TokenTable& tokens, int b, int first) {
  static_assert(kTokens <= kThreads);
  const int i = first + thread_id();
  if (thread_id() >= kTokens || i >= tokens.count) return int2{-1, 0};
  const int position = tokens.positions.load(i);
  return int2{position, mask.segment(b, position)};
}

// The marks of tiles in shared memory.
class Marks {
 public:
  __device__ explicit Marks(int byte_offset) : data_(shared_memory<int2>(byte_offset)) {}
  __device__ Shared<const int2> at(int i) const { return data_ + i; }
  template <int kTokens>
  __device__ void store(int first, int2 mark) const {
    if (thread_id() < kTokens) data_.store(first + thread_id(), mark);
  }

 private:
  Shared<int2> data_;
};

// Hidden scores become -inf. `rows`: marks of the warp's rows; `columns`: of the streamed tile.
template <Side kSide, int kBlocks>
__device__ void hide(Fragments<kBlocks, kColumns>& scores, Shared<const int2> rows,
                     Shared<const int2> columns, const Mask& mask) {
#pragma unroll
  for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int2 row = rows.load(fragment_row(m, half));
      const Interval seen = visible<kSide>(mask, row.x);
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
        const int4 pair = columns.load_as<int4>(8 * n + fragment_column());
        float* score = scores[m][n] + 2 * half;
        if (pair.x < seen.first || pair.x > seen.last || pair.y != row.y) score[0] = -kInfinity;
        if (pair.z < seen.first || pair.z > seen.last || pair.w != row.y) score[1] = -kInfinity;
      }
    }
  }
}

}  // namespace sp::SP_GPU::mma
