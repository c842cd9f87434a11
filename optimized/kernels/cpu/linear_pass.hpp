// What every pass over a chunk shares: extents, tiles in scratch, and the way of operands there.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "optimized/kernels/cpu/linear_decay.hpp"
#include "optimized/kernels/cpu/linear_features.hpp"
#include "optimized/kernels/cpu/linear_intra.hpp"
#include "optimized/kernels/cpu/linear_pieces.hpp"
#include "optimized/kernels/cpu/linear_tile.hpp"
#include "optimized/kernels/cpu/linear_vectors.hpp"
#include "optimized/kernels/cpu/scratch.hpp"

namespace sp {

// The heads of a chunk: a state head has key head `key`, and query heads [first, first + group).
struct StateHead {
  std::int64_t b, s, key, first, group;
};

template <class T>
class LinearPass {
 protected:
  // SH state heads of width W.
  LinearPass(Scratch& scratch, const LinearBlock& block, std::int64_t SH, std::int64_t W)
      : block_(block),
        terms_(block.terms),
        n_(block.tokens.count),
        B_((block.q.defined() ? block.q : block.k).extent(1)),
        SH_(SH),
        D_((block.q.defined() ? block.q : block.k).extent(3)),
        W_(W),
        chunk_(std::max<std::int64_t>(1, std::min(terms_.chunk, n_))),
        row_stride_(tile::padded(D_)),
        column_stride_(tile::padded(chunk_)),
        value_stride_(tile::padded(W)),
        norm_(terms_),
        decay_(scratch, terms_, D_, chunk_),
        map_(scratch, terms_.module, D_, W, chunk_),
        intra_(scratch, terms_, D_, W, chunk_, decay_),
        q_(scratch, {Slot::kQuery, Slot::kQueryTransposed, Slot::kNormalisedQuery}, D_, chunk_,
           norm_),
        k_(scratch, {Slot::kKey, Slot::kKeyTransposed, Slot::kNormalisedKey}, D_, chunk_, norm_),
        v_(scratch.get<T>(Slot::kValue, chunk_ * value_stride_)),
        v_columns_(scratch.get<T>(Slot::kValueTransposed, W * column_stride_)),
        d_out_(scratch.get<T>(Slot::kGradient, chunk_ * value_stride_)),
        d_out_columns_(scratch.get<T>(Slot::kGradientTransposed, W * column_stride_)),
        state_(scratch.get<T>(Slot::kState, map_.features() * value_stride_)) {}

  // Calls f(head, pieces) for all state heads.
  template <class F>
  void for_each_head(F f) {
    const std::int64_t G = block_.k.defined() ? block_.k.extent(2) : SH_;
    const std::int64_t H = block_.q.defined() ? block_.q.extent(2) : SH_;
    for (std::int64_t b = 0; b < B_; ++b) {
      const std::vector<Piece> pieces = pieces_of(block_.tokens, terms_, b);
      for (std::int64_t s = 0; s < SH_; ++s) {
        decay_.select(b, s);
        f(StateHead{b, s, s * G / SH_, s * H / SH_, H / SH_}, pieces);
      }
    }
  }

  // Calls f(begin, n) for the sub-chunks of a piece, in order of time or against it.
  template <class F>
  void for_each_chunk(const Piece& piece, F f) const {
    for (std::int64_t i = 0; i < piece.count; i += chunk_) {
      f(piece.begin + i, std::min(chunk_, piece.count - i));
    }
  }
  template <class F>
  void for_each_chunk_backwards(const Piece& piece, F f) const {
    const std::int64_t chunks = (piece.count + chunk_ - 1) / chunk_;
    for (std::int64_t c = chunks - 1; c >= 0; --c) {
      f(piece.begin + c * chunk_, std::min(chunk_, piece.count - c * chunk_));
    }
  }

  void load_queries(std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t n) {
    q_.load(head_of(block_.q, b, h).row_window(begin, n), norm_, !map_.identity());
  }
  void load_keys(const StateHead& head, std::int64_t begin, std::int64_t n, bool columns) {
    k_.load(head_of(block_.k, head.b, head.key).row_window(begin, n), norm_,
            columns || !map_.identity());
  }
  // With the column of ones that sums the weights.
  void load_values(const StateHead& head, std::int64_t begin, std::int64_t n, bool columns) {
    const std::int64_t E = block_.v.extent(3);
    pack(v_, value_stride_, head_of(block_.v, head.b, head.key).row_window(begin, n));
    for (std::int64_t i = 0; i < n && W_ > E; ++i) v_[i * value_stride_ + E] = 1;
    if (columns)
      tile::transpose(tile::Transposition<T>{v_columns_, column_stride_, v_, value_stride_, n, W_});
  }
  // Times the scale, which all gradients have as a factor.
  void load_d_out(const Tensor& d_sums, std::int64_t b, std::int64_t h, std::int64_t begin,
                  std::int64_t n, bool columns) {
    pack(d_out_, value_stride_, head_of(d_sums, b, h).row_window(begin, n));
    if (terms_.scale != 1) {
      tile::scale(d_out_, n * value_stride_, static_cast<T>(terms_.scale));
    }
    if (columns)
      tile::transpose(
          tile::Transposition<T>{d_out_columns_, column_stride_, d_out_, value_stride_, n, W_});
  }

  Points<T> points(const VectorTile<T>& tile) const { return {tile.rows, tile.columns, tile.n}; }

  void zero_state() { std::fill(state_, state_ + map_.features() * value_stride_, T{0}); }
  void load(const Tensor& state, const StateHead& head) {
    load_state(state_, state, head.b, head.s, map_.features(), W_);
  }
  void store(const Tensor& state, const StateHead& head) const {
    store_state(state, state_, head.b, head.s, W_);
  }

  // state = decay state + phi(k)T v, after which k is faded.
  void add_keys() {
    decay_.fade_state(state_, W_);
    decay_.fade_keys(k_.rows);
    map_.add(state_, points(k_), v_);
  }

  // decay_terms += sign x d_x
  void add_decay_terms(const Tensor& decay_terms, const StateHead& head, std::int64_t begin,
                       const VectorTile<T>& x, const T* d_x, T sign) const {
    if (decay_.none()) return;
    const Matrix terms = head_of(decay_terms, head.b, head.s).row_window(begin, x.n);
    for (std::int64_t i = 0; i < x.n; ++i) {
      const T *a = x.rows + i * row_stride_, *b = d_x + i * row_stride_;
      T* term = terms.row<T>(i);
      if (decay_.per_channel()) {
        for (std::int64_t c = 0; c < D_; ++c) term[c] += sign * a[c] * b[c];
      } else {
        *term += sign * tile::weighted_sum(a, b, D_);
      }
    }
  }

  const LinearBlock& block_;
  const LinearTerms& terms_;
  const std::int64_t n_, B_, SH_, D_, W_;
  const std::int64_t chunk_;  // tokens of a sub-chunk
  const std::int64_t row_stride_, column_stride_, value_stride_;
  LayerNorm<T> norm_;
  ChunkDecay<T> decay_;
  FeatureMap<T> map_;
  IntraChunk<T> intra_;
  VectorTile<T> q_, k_;
  T* v_;              // [n, W]
  T* v_columns_;      // [W, n]
  T* d_out_;          // [n, W]
  T* d_out_columns_;  // [W, n]
  T* state_;          // [F, W]
};

// State heads of a pass that has keys: all heads share those of the keys unless each decays.
inline std::int64_t state_heads(const LinearBlock& block) {
  return decay_of(block.terms.module) == Decay::kNone ? block.k.extent(2)
                                                      : block.terms.log_decay.extent(2);
}

}  // namespace sp
