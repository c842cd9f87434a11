// The order of work of every attention kernel: rows that stay, and tiles that stream past them.
//
// Which tiles hold anything visible is decided from the spans of their positions alone; the others
// cost neither a copy nor a barrier.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/attention_mask.cuh"

namespace sp::SP_GPU::mma {

// Smallest and largest position of kTokens tokens from `first` on.
template <int kTokens>
__device__ int2 span(const TokenTable& tokens, int first) {
  int2 all = tokens.spans.load(first / kTileTokens);
  if (kTokens > kTileTokens && first + kTileTokens < tokens.count) {
    const int2 more = tokens.spans.load(first / kTileTokens + 1);
    all = int2{min(all.x, more.x), max(all.y, more.y)};
  }
  return all;
}

// The streamed tiles, in order, that kRows rows on `kSide` from row `first` on see anything of. A
// warp decides on 32 tiles at a time.
template <Side kSide, int kRows>
class TileWalk {
 public:
  static_assert(kStreamed <= kTileTokens);

  __device__ TileWalk(const Mask& mask, const TokenTable& rows, int first,
                      const TokenTable& streamed)
      : mask_(mask), rows_(rows), first_(first), streamed_(streamed) {}

  // False: no more.
  __device__ bool next() {
    for (++tile_; tile_ * kStreamed < streamed_.count; ++tile_) {
      if (tile_ % kWarp == 0) classify();
      if (seen_ >> tile_ % kWarp & 1) return true;
    }
    return false;
  }
  __device__ void restart() { tile_ = -1; }
  __device__ int first_token() const { return tile_ * kStreamed; }
  // Whether some score of the tile may have to be hidden.
  __device__ bool partial() const { return partial_ >> tile_ % kWarp & 1; }

 private:
  __device__ void classify() {
    const int first = first_token() + lane_id() * kStreamed;
    bool seen = false, partial = false;
    if (first < streamed_.count) {
      const int2 rows = span<kRows>(rows_, first_), other = span<kStreamed>(streamed_, first);
      const Visibility visibility =
          kSide == Side::kQueries ? mask_.classify(rows, other) : mask_.classify(other, rows);
      seen = visibility != Visibility::kEmpty;
      partial = visibility == Visibility::kPartial || first + kStreamed > streamed_.count;
    }
    seen_ = warp_ballot(seen);
    partial_ = warp_ballot(partial);
  }

  const Mask& mask_;
  const TokenTable& rows_;
  const int first_;
  const TokenTable& streamed_;
  int tile_ = -1;
  std::uint32_t seen_ = 0, partial_ = 0;  // bit i: tile i of the 32 that tile_ is among
};

// Runs through the tiles from the one on that `walk` is at, one ahead with the copies.
//   next()         moves on; false: no more
//   start(stage)   begins to copy a tile, and returns what reaches shared memory through a register
//   finish(stage, that)
//   work(stage, partial)
template <class Walk, class Next, class Start, class Finish, class Work>
__device__ void stream_tiles(Walk& walk, Next next, Start start, Finish finish, Work work) {
  finish(0, start(0));
  int stage = 0;
  bool more = true;
  while (more) {
    const bool partial = walk.partial();
    async_wait<0>();
    block_barrier();  // the stage is here, and nobody uses the other one
    more = next();
    decltype(start(0)) registers{};
    if (more) registers = start(stage ^ 1);
    work(stage, partial);
    stage ^= 1;
    if (more) finish(stage, registers);
  }
}

}  // namespace sp::SP_GPU::mma
