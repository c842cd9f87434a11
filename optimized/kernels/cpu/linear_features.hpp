// Feature maps against a state, a tile of features at a time: the features of a chunk are never in
// memory together.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "optimized/kernels/cpu/linear_pieces.hpp"
#include "optimized/kernels/cpu/scratch.hpp"
#include "optimized/kernels/linear.hpp"

namespace sp {

// Vectors of n tokens: the identity map reads rows, all others columns.
template <class T>
struct Points {
  const T* rows;     // [n, D] in rows of padded(D)
  const T* columns;  // [D, n] in rows of padded(chunk)
  std::int64_t n;
};

// States are [F, W] in rows of padded(W), values [n, W] too, values by columns [W, n] in rows of
// padded(chunk).
template <class T>
class FeatureMap {
 public:
  FeatureMap(Scratch& scratch, Module module, std::int64_t D, std::int64_t W, std::int64_t chunk);

  bool identity() const { return map_.empty(); }
  std::int64_t features() const { return F_; }

  // out = phi(x) state
  void apply(T* out, const Points<T>& x, const T* state);
  // state += phi(x)T y
  void add(T* state, const Points<T>& x, const T* y);
  // d_rows [n, D] in rows of padded(D) = the gradient of x, where that of phi(x) is y stateT
  void differentiate(T* d_rows, const Points<T>& x, const T* state, const T* y_columns);

 private:
  // factor x_a x_b; an index -1 stands for 1.
  struct Feature {
    std::int32_t a, b;
    T factor;
  };
  static constexpr std::int64_t kTile = 128;

  // phi(x) of the features [begin, end) into the tile, one row each.
  void expand(const T* columns, std::int64_t n, std::int64_t begin, std::int64_t end);
  // d_columns += their share of the gradient, from that of the features in the tile.
  void reduce(const T* columns, std::int64_t n, std::int64_t begin, std::int64_t end);

  const std::int64_t D_, W_, F_;
  const std::int64_t row_stride_, column_stride_, value_stride_;
  std::vector<Feature> map_;  // empty: the identity
  std::vector<T> ones_;       // [padded(chunk)]
  T* tile_;                   // [kTile or D, n]
  std::vector<T> d_columns_;  // [D, n]
};

}  // namespace sp
