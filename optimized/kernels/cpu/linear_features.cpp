// The maps of Based (1, x_a, x_a squared, x_a x_b) and Rebased (x_a squared, x_a x_b).
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/linear_features.hpp"

#include <algorithm>
#include <cmath>

#include "optimized/kernels/cpu/linear_tile.hpp"

namespace sp {

template <class T>
FeatureMap<T>::FeatureMap(Scratch& scratch, Module module, std::int64_t D, std::int64_t W,
                          std::int64_t chunk)
    : D_(D),
      W_(W),
      F_(features_of(module, D)),
      row_stride_(tile::padded(D)),
      column_stride_(tile::padded(chunk)),
      value_stride_(tile::padded(W)),
      tile_(scratch.get<T>(Slot::kFeatures, std::max(D, kTile) * column_stride_)) {
  if (!is_normalised(module)) return;
  const bool based = module == Module::kBased;
  const double root = std::sqrt(static_cast<double>(D));
  const auto put = [&](std::int64_t a, std::int64_t b, double factor) {
    map_.push_back(
        {static_cast<std::int32_t>(a), static_cast<std::int32_t>(b), static_cast<T>(factor)});
  };
  map_.reserve(static_cast<std::size_t>(F_));
  if (based) {
    put(-1, -1, 1);
    for (std::int64_t a = 0; a < D; ++a) put(a, -1, 1 / std::sqrt(root));
  }
  for (std::int64_t a = 0; a < D; ++a) put(a, a, (based ? std::sqrt(0.5) : 1) / root);
  for (std::int64_t a = 0; a < D; ++a) {
    for (std::int64_t b = a + 1; b < D; ++b) put(a, b, (based ? 1 : std::sqrt(2.0)) / root);
  }
  ones_.assign(static_cast<std::size_t>(column_stride_), T{1});
  d_columns_.resize(static_cast<std::size_t>(D * column_stride_));
}

template <class T>
void FeatureMap<T>::expand(const T* columns, std::int64_t n, std::int64_t begin, std::int64_t end) {
  const auto row = [&](std::int32_t index) {
    return index < 0 ? ones_.data() : columns + index * column_stride_;
  };
  T* target = tile_;
  for (std::int64_t f = begin; f < end; ++f, target += column_stride_) {
    const Feature& feature = map_[static_cast<std::size_t>(f)];
    tile::product_row(target, row(feature.a), row(feature.b), feature.factor, n);
  }
}

template <class T>
void FeatureMap<T>::reduce(const T* columns, std::int64_t n, std::int64_t begin, std::int64_t end) {
  const auto row = [&](std::int32_t index) {
    return index < 0 ? ones_.data() : columns + index * column_stride_;
  };
  const T* source = tile_;
  for (std::int64_t f = begin; f < end; ++f, source += column_stride_) {
    const Feature& feature = map_[static_cast<std::size_t>(f)];
    for (const auto& [own, other] :
         {std::pair{feature.a, feature.b}, std::pair{feature.b, feature.a}}) {
      if (own < 0) continue;
      tile::add_product_row(d_columns_.data() + own * column_stride_, source, row(other),
                            feature.factor, n);
    }
  }
}

template <class T>
void FeatureMap<T>::apply(T* out, const Points<T>& x, const T* state) {
  if (identity()) {
    multiply(out, value_stride_, by_rows(x.rows, row_stride_), state, value_stride_, {x.n, W_, D_},
             false);
    return;
  }
  for (std::int64_t begin = 0; begin < F_; begin += kTile) {
    const std::int64_t end = std::min(begin + kTile, F_);
    expand(x.columns, x.n, begin, end);
    multiply<T>(out, value_stride_, by_columns(static_cast<const T*>(tile_), column_stride_),
                state + begin * value_stride_, value_stride_, {x.n, W_, end - begin}, begin > 0);
  }
}

template <class T>
void FeatureMap<T>::add(T* state, const Points<T>& x, const T* y) {
  if (identity()) {
    multiply(state, value_stride_, by_columns(x.rows, row_stride_), y, value_stride_, {D_, W_, x.n},
             true);
    return;
  }
  for (std::int64_t begin = 0; begin < F_; begin += kTile) {
    const std::int64_t end = std::min(begin + kTile, F_);
    expand(x.columns, x.n, begin, end);
    multiply<T>(state + begin * value_stride_, value_stride_,
                by_rows(static_cast<const T*>(tile_), column_stride_), y, value_stride_,
                {end - begin, W_, x.n}, true);
  }
}

template <class T>
void FeatureMap<T>::differentiate(T* d_rows, const Points<T>& x, const T* state,
                                  const T* y_columns) {
  if (identity()) {
    multiply(tile_, column_stride_, by_rows(state, value_stride_), y_columns, column_stride_,
             {D_, x.n, W_}, false);
    tile::transpose(tile::Transposition<T>{d_rows, row_stride_, tile_, column_stride_, D_, x.n});
    return;
  }
  std::fill(d_columns_.begin(), d_columns_.end(), T{0});
  for (std::int64_t begin = 0; begin < F_; begin += kTile) {
    const std::int64_t end = std::min(begin + kTile, F_);
    multiply(tile_, column_stride_, by_rows(state + begin * value_stride_, value_stride_),
             y_columns, column_stride_, {end - begin, x.n, W_}, false);
    reduce(x.columns, x.n, begin, end);
  }
  tile::transpose(
      tile::Transposition<T>{d_rows, row_stride_, d_columns_.data(), column_stride_, D_, x.n});
}

template class FeatureMap<float>;
template class FeatureMap<double>;

}  // namespace sp
