// Queries or keys of one head in one sub-chunk, as the feature maps see them: layer-normed for
// Rebased, as they are otherwise.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "optimized/kernels/cpu/matrix.hpp"
#include "optimized/kernels/cpu/scratch.hpp"
#include "optimized/kernels/linear.hpp"

namespace sp {

// The layer norm of Rebased, gamma (x - mean) / sqrt(var + 1e-6) + beta, and its gradients; of
// other modules nothing.
template <class T>
class LayerNorm {
 public:
  explicit LayerNorm(const LinearTerms& terms);

  bool present() const { return !gamma_.empty(); }
  // rows become their norm; `unscaled` what gamma multiplies, `inverse` 1 / sqrt(var + 1e-6).
  void apply(T* rows, std::int64_t stride, std::int64_t n, T* unscaled, T* inverse) const;
  // d_rows, of the norm, become those of the vectors; keeps the gradients of gamma and beta.
  void differentiate(T* d_rows, std::int64_t stride, std::int64_t n, const T* unscaled,
                     const T* inverse);
  // Adds what it kept, summed in double.
  void add_gradients(const Tensor& d_gamma, const Tensor& d_beta) const;

 private:
  std::vector<double> gamma_, beta_, d_gamma_, d_beta_;  // [D], all empty: not present
};

template <class T>
class VectorTile {
 public:
  struct Slots {
    Slot rows, columns, unscaled;
  };
  VectorTile(Scratch& scratch, Slots slots, std::int64_t D, std::int64_t chunk,
             const LayerNorm<T>& norm);

  void load(const Matrix& source, const LayerNorm<T>& norm, bool columns);
  void differentiate(T* d_rows, LayerNorm<T>& norm) const {
    if (norm.present()) norm.differentiate(d_rows, row_stride, n, unscaled_, inverse_.data());
  }

  const std::int64_t row_stride;     // padded(D)
  const std::int64_t column_stride;  // padded(chunk)
  std::int64_t n = 0;
  T* const rows;     // [n, D]
  T* const columns;  // [D, n], only if asked for

 private:
  T* unscaled_ = nullptr;  // [n, D]
  std::vector<T> inverse_;
};

}  // namespace sp
