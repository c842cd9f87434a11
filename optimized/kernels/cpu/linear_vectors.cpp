// Loading queries and keys, and the layer norm of Rebased.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/linear_vectors.hpp"

#include <cmath>

#include "optimized/kernels/cpu/linear_tile.hpp"
#include "optimized/kernels/cpu/tile.hpp"

namespace sp {
namespace {

constexpr double kNormEpsilon = 1e-6;

std::vector<double> parameter(const Tensor& tensor) {
  const Matrix row = head_of(tensor, 0, 0);
  std::vector<double> values(static_cast<std::size_t>(row.columns));
  pack(values.data(), row.columns, row);
  return values;
}

template <class T>
void add_to(const Tensor& tensor, const std::vector<double>& values) {
  T* row = head_of(tensor, 0, 0).template row<T>(0);
  for (std::size_t d = 0; d < values.size(); ++d) row[d] += static_cast<T>(values[d]);
}

}  // namespace

template <class T>
LayerNorm<T>::LayerNorm(const LinearTerms& terms) {
  if (terms.module != Module::kRebased) return;
  gamma_ = parameter(terms.gamma);
  beta_ = parameter(terms.beta);
  d_gamma_.assign(gamma_.size(), 0);
  d_beta_.assign(gamma_.size(), 0);
}

// Mean and variance in double: an x far from 0 must not cost the digits of its differences.
template <class T>
void LayerNorm<T>::apply(T* rows, std::int64_t stride, std::int64_t n, T* unscaled,
                         T* inverse) const {
  const std::size_t D = gamma_.size();
  for (std::int64_t i = 0; i < n; ++i, rows += stride, unscaled += stride) {
    double mean = 0, variance = 0;
    for (std::size_t d = 0; d < D; ++d) mean += static_cast<double>(rows[d]);
    mean /= static_cast<double>(D);
    for (std::size_t d = 0; d < D; ++d) {
      const double centred = static_cast<double>(rows[d]) - mean;
      variance += centred * centred;
    }
    variance /= static_cast<double>(D);
    const double factor = 1 / std::sqrt(variance + kNormEpsilon);
    inverse[i] = static_cast<T>(factor);
    for (std::size_t d = 0; d < D; ++d) {
      const double x = (static_cast<double>(rows[d]) - mean) * factor;
      unscaled[d] = static_cast<T>(x);
      rows[d] = static_cast<T>(gamma_[d] * x + beta_[d]);
    }
  }
}

// With y = gamma x + beta and dx = gamma dy: d(vector) = inverse (dx - mean(dx) - x mean(x dx)).
template <class T>
void LayerNorm<T>::differentiate(T* d_rows, std::int64_t stride, std::int64_t n, const T* unscaled,
                                 const T* inverse) {
  const std::size_t D = gamma_.size();
  for (std::int64_t i = 0; i < n; ++i, d_rows += stride, unscaled += stride) {
    double mean = 0, along = 0;
    for (std::size_t d = 0; d < D; ++d) {
      const double dy = static_cast<double>(d_rows[d]), x = static_cast<double>(unscaled[d]);
      d_gamma_[d] += dy * x;
      d_beta_[d] += dy;
      mean += gamma_[d] * dy;
      along += gamma_[d] * dy * x;
    }
    mean /= static_cast<double>(D);
    along /= static_cast<double>(D);
    for (std::size_t d = 0; d < D; ++d) {
      const double dx = gamma_[d] * static_cast<double>(d_rows[d]);
      const double change = dx - mean - static_cast<double>(unscaled[d]) * along;
      d_rows[d] = static_cast<T>(static_cast<double>(inverse[i]) * change);
    }
  }
}

template <class T>
void LayerNorm<T>::add_gradients(const Tensor& d_gamma, const Tensor& d_beta) const {
  if (!present()) return;
  add_to<T>(d_gamma, d_gamma_);
  add_to<T>(d_beta, d_beta_);
}

template <class T>
VectorTile<T>::VectorTile(Scratch& scratch, Slots slots, std::int64_t D, std::int64_t chunk,
                          const LayerNorm<T>& norm)
    : row_stride(tile::padded(D)),
      column_stride(tile::padded(chunk)),
      rows(scratch.get<T>(slots.rows, chunk * row_stride)),
      columns(scratch.get<T>(slots.columns, D * column_stride)) {
  if (!norm.present()) return;
  unscaled_ = scratch.get<T>(slots.unscaled, chunk * row_stride);
  inverse_.resize(static_cast<std::size_t>(chunk));
}

template <class T>
void VectorTile<T>::load(const Matrix& source, const LayerNorm<T>& norm, bool with_columns) {
  n = source.rows;
  pack(rows, row_stride, source);
  if (norm.present()) norm.apply(rows, row_stride, n, unscaled_, inverse_.data());
  if (with_columns) {
    tile::transpose(
        tile::Transposition<T>{columns, column_stride, rows, row_stride, n, source.columns});
  }
}

template class LayerNorm<float>;
template class LayerNorm<double>;
template class VectorTile<float>;
template class VectorTile<double>;

}  // namespace sp
