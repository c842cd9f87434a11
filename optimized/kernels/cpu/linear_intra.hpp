// The quadratic part: queries of one sub-chunk against its keys, and its gradients.
//
// weights[j, i] for i <= j is f(<q_j, k_i>) times the decay between the two, with f the identity,
// 1 + s + s^2/2 at s = x/sqrt(D) (Based) or x^2/D (Rebased): what the feature maps multiply to.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "optimized/kernels/cpu/linear_decay.hpp"
#include "optimized/kernels/cpu/linear_vectors.hpp"
#include "optimized/kernels/cpu/scratch.hpp"
#include "optimized/kernels/linear.hpp"

namespace sp {

// Values, outputs and their gradients have rows of padded(W); d_q and d_k of padded(D).
template <class T>
class IntraChunk {
 public:
  IntraChunk(Scratch& scratch, const LinearTerms& terms, std::int64_t D, std::int64_t W,
             std::int64_t chunk, const ChunkDecay<T>& decay);

  void form_weights(const VectorTile<T>& q, const VectorTile<T>& k);
  // What the weights' gradients become in the products with q and k, from those of the output and
  // values by columns [W, n]. Forms the weights too if asked to. Maps need q by rows.
  void form_gradients(const T* d_out, const T* v_columns, const VectorTile<T>& q,
                      const VectorTile<T>& k, bool weights);

  void add_out(T* out, const T* v, bool accumulate) const;  // out = or += weights v
  void add_d_v(T* d_v, const T* d_out) const;               // d_v += weightsT d_out
  void add_d_q(T* d_q, const VectorTile<T>& k);
  void add_d_k(T* d_k, const VectorTile<T>& q);

 private:
  void form_products(T* s, const T* x, std::int64_t stride, const T* y_columns,
                     std::int64_t depth) const;
  void form_gated_weights(const VectorTile<T>& q, const VectorTile<T>& k);
  void add_gated_d_q(T* d_q, const VectorTile<T>& k);
  void add_gated_d_k(T* d_k, const VectorTile<T>& q);
  void map_weights();
  void map_gradients();     // times f'
  void finish(T* s) const;  // decay, and 0 above the diagonal
  void hide(T* s) const;

  const Module module_;
  const ChunkDecay<T>& decay_;
  const std::int64_t D_, W_;
  const std::int64_t stride_;  // of scores, padded(chunk)
  const std::int64_t row_stride_, value_stride_;
  std::int64_t n_ = 0;
  T* weights_;          // [n, n]
  T* gradients_;        // [n, n]
  T* faded_ = nullptr;  // gated only: [chunk, D] or [D, chunk]
  T* block_ = nullptr;  // gated only: 2 x [kGatedRows, D]
};

}  // namespace sp
