// Products inside a sub-chunk, cut along the diagonal into strips so that little of what the mask
// hides is computed.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/linear_intra.hpp"

#include <algorithm>
#include <cmath>

#include "optimized/kernels/cpu/linear_pieces.hpp"
#include "optimized/kernels/cpu/linear_tile.hpp"

namespace sp {
namespace {

// Whole blocks of 6 rows as tile::multiply forms them. No strips at all: 8 % slower (f32, D = 128).
constexpr std::int64_t kStrip = 24;

// Calls f(begin, end) for strips of rows.
template <class F>
void for_each_strip(std::int64_t n, F f) {
  for (std::int64_t begin = 0; begin < n; begin += kStrip) f(begin, std::min(begin + kStrip, n));
}

}  // namespace

template <class T>
IntraChunk<T>::IntraChunk(Scratch& scratch, const LinearTerms& terms, std::int64_t D,
                          std::int64_t W, std::int64_t chunk, const ChunkDecay<T>& decay)
    : module_(terms.module),
      decay_(decay),
      D_(D),
      W_(W),
      stride_(tile::padded(chunk)),
      row_stride_(tile::padded(D)),
      value_stride_(tile::padded(W)),
      weights_(scratch.get<T>(Slot::kScores, chunk * stride_)),
      gradients_(scratch.get<T>(Slot::kScoreGradients, chunk * stride_)) {
  if (!decay.per_channel()) return;
  faded_ = scratch.get<T>(Slot::kDecayedBlocks, std::max(chunk * row_stride_, D * stride_));
  block_ = scratch.get<T>(Slot::kGatedBlock, 2 * tile::kGatedRows * row_stride_);
}

// s[j, i] = <x_j, y_i> for i <= j, and some of the others.
template <class T>
void IntraChunk<T>::form_products(T* s, const T* x, std::int64_t stride, const T* y_columns,
                                  std::int64_t depth) const {
  for_each_strip(n_, [&](std::int64_t begin, std::int64_t end) {
    multiply(s + begin * stride_, stride_, by_rows(x + begin * stride, stride), y_columns, stride_,
             {end - begin, end, depth}, false);
  });
}

template <class T>
void IntraChunk<T>::hide(T* s) const {
  for (std::int64_t j = 0; j < n_; ++j) {
    std::fill(s + j * stride_ + j + 1, s + (j + 1) * stride_, T{0});
  }
}

template <class T>
void IntraChunk<T>::finish(T* s) const {
  decay_.fade_scores(s, stride_);
  hide(s);
}

template <class T>
void IntraChunk<T>::map_weights() {
  if (module_ == Module::kBased) {
    const T factor = static_cast<T>(1 / std::sqrt(static_cast<double>(D_)));
    for (std::int64_t j = 0; j < n_; ++j) {
      T* row = weights_ + j * stride_;
      for (std::int64_t i = 0; i <= j; ++i) {
        const T s = factor * row[i];
        row[i] = 1 + s * (1 + s / 2);
      }
    }
  }
  if (module_ == Module::kRebased) {
    const T factor = static_cast<T>(1 / static_cast<double>(D_));
    for (std::int64_t j = 0; j < n_; ++j) {
      T* row = weights_ + j * stride_;
      for (std::int64_t i = 0; i <= j; ++i) row[i] *= factor * row[i];
    }
  }
}

template <class T>
void IntraChunk<T>::map_gradients() {
  const bool based = module_ == Module::kBased;
  const double D = static_cast<double>(D_);
  // f' = constant + linear <q, k>
  const T constant = static_cast<T>(based ? 1 / std::sqrt(D) : 0);
  const T linear = static_cast<T>((based ? 1 : 2) / D);
  for (std::int64_t j = 0; j < n_; ++j) {
    T* row = gradients_ + j * stride_;
    const T* scores = weights_ + j * stride_;
    for (std::int64_t i = 0; i <= j; ++i) row[i] *= constant + linear * scores[i];
  }
}

template <class T>
void IntraChunk<T>::form_weights(const VectorTile<T>& q, const VectorTile<T>& k) {
  n_ = k.n;
  if (decay_.per_channel()) return form_gated_weights(q, k);
  form_products(weights_, q.rows, q.row_stride, k.columns, D_);
  map_weights();
  finish(weights_);
}

template <class T>
void IntraChunk<T>::form_gradients(const T* d_out, const T* v_columns, const VectorTile<T>& q,
                                   const VectorTile<T>& k, bool weights) {
  n_ = k.n;
  form_products(gradients_, d_out, value_stride_, v_columns, W_);
  if (decay_.per_channel()) {
    if (weights) form_gated_weights(q, k);
    return;
  }
  const bool mapped = is_normalised(module_);
  if (mapped || weights) form_products(weights_, q.rows, q.row_stride, k.columns, D_);
  if (mapped) map_gradients();
  finish(gradients_);
  if (!weights) return;
  map_weights();
  finish(weights_);
}

template <class T>
void IntraChunk<T>::add_out(T* out, const T* v, bool accumulate) const {
  for_each_strip(n_, [&](std::int64_t begin, std::int64_t end) {
    multiply<T>(out + begin * value_stride_, value_stride_,
                by_rows<T>(weights_ + begin * stride_, stride_), v, value_stride_,
                {end - begin, W_, end}, accumulate);
  });
}

template <class T>
void IntraChunk<T>::add_d_v(T* d_v, const T* d_out) const {
  for_each_strip(n_, [&](std::int64_t begin, std::int64_t end) {
    multiply<T>(d_v + begin * value_stride_, value_stride_,
                by_columns<T>(weights_ + begin * stride_ + begin, stride_),
                d_out + begin * value_stride_, value_stride_, {end - begin, W_, n_ - begin}, true);
  });
}

template <class T>
void IntraChunk<T>::add_d_q(T* d_q, const VectorTile<T>& k) {
  if (decay_.per_channel()) return add_gated_d_q(d_q, k);
  for_each_strip(n_, [&](std::int64_t begin, std::int64_t end) {
    multiply<T>(d_q + begin * row_stride_, row_stride_,
                by_rows<T>(gradients_ + begin * stride_, stride_), k.rows, row_stride_,
                {end - begin, D_, end}, true);
  });
}

template <class T>
void IntraChunk<T>::add_d_k(T* d_k, const VectorTile<T>& q) {
  if (decay_.per_channel()) return add_gated_d_k(d_k, q);
  for_each_strip(n_, [&](std::int64_t begin, std::int64_t end) {
    multiply<T>(d_k + begin * row_stride_, row_stride_,
                by_columns<T>(gradients_ + begin * stride_ + begin, stride_),
                q.rows + begin * row_stride_, row_stride_, {end - begin, D_, n_ - begin}, true);
  });
}

template class IntraChunk<float>;
template class IntraChunk<double>;

}  // namespace sp
