// The steps that the gradients of linear attention are made of.
//
// States     A pass over the tiles of tokens writes the state before every tile, or the gradient of
//            the state after it, to scratch; with those all tiles are independent. Chunks whose
//            states exceed kStateBytes are worked off in spans of tiles.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>

#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {

constexpr std::int64_t kStateBytes = std::int64_t{256} << 20;

// A chunk, and its vectors as the feature map sees them. Operands that are undefined are not used;
// without q, query heads are state heads.
struct BackwardChunk {
  BackwardChunk(const Gpu& on, const LinearBlock& chunk, const Tensor& gradient,
                std::int64_t state_heads, std::int64_t width);

  DType storage() const { return (block.q.defined() ? block.q : block.k).dtype(); }
  bool empty() const { return B * H * SH * D * W == 0; }

  const Gpu& gpu;
  const LinearBlock& block;
  const Tensor d_sums;
  const std::int64_t n, B, H, G, SH, D, F, E, W;
  const MappedVectors q, k;
};

// A run of tiles.
struct Span {
  int first = 0, count = 0;
};
// States [F, B, SH, W] of the tiles of a span; with tile_stride 0 the same for all of them.
struct TileStates {
  View<float> view;  // null: 0
  std::int64_t tile_stride = 0;
};

struct StatePass {
  View<float> initial;  // null: 0
  View<float> result;   // null: not wanted; may be `initial` itself
  TileStates states;    // null: not wanted
  Span span;
  bool adds = true;  // false: the initial state only fades
};
// In order of time, over keys and values: states before the tiles.
void pass_keys(const BackwardChunk& chunk, const StatePass& pass);
// Against it, over queries and d_sums: gradients of the states after the tiles.
void pass_queries(const BackwardChunk& chunk, const StatePass& pass);

enum class Direction : std::uint8_t { kForward, kBackward };
// A pass over all tiles from `initial` to `result`, either of which may be undefined; use() is called
// for every span once its states are there. The states of one span take up to `state_bytes`, or are
// those of one tile.
void sweep(const BackwardChunk& chunk, Direction direction, const Tensor& initial,
           const Tensor& result, bool adds,
           const std::function<void(const TileStates& states, const Span& span)>& use,
           std::int64_t state_bytes = kStateBytes);

// What one step adds to, and what it adds.
struct GradientStep {
  View<float> target;       // d_q, d_k or d_v
  View<float> decay_terms;  // null: none; not for d_v
  TileStates states;        // null: nothing from tokens of other tiles
  Span span;
  bool intra = true;  // from tokens of the same tile
};
void add_d_q(const BackwardChunk& chunk, const GradientStep& step);
void add_d_k(const BackwardChunk& chunk, const GradientStep& step);
void add_d_v(const BackwardChunk& chunk, const GradientStep& step);

// Where the gradients of vectors as the map sees them go: to those of the tensor, for Rebased on the
// way through the layer norm, in finish().
class VectorGradients {
 public:
  VectorGradients(const Gpu& gpu, const LinearTerms& terms, const Tensor& x, const Tensor& d_x);
  const View<float>& target() const { return target_; }
  void finish(const Tensor& d_gamma, const Tensor& d_beta) const;

 private:
  const Gpu& gpu_;
  const LinearTerms& terms_;
  const Tensor &x_, &d_x_;
  std::optional<Scratch> scratch_;  // [n, B, H, D]
  View<float> target_;
};

}  // namespace sp::SP_GPU
