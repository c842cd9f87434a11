// Feature maps of linear attention and their gradients, one thread per element. Symbols are those
// of reference/README.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "reference/cuda/arrays.cuh"
#include "reference/problem/problem.hpp"

namespace sp::SP_GPU::reference {

// The features of one module for vectors of D elements.
struct Map {
  Module module;
  Index D;

  Index pairs() const { return D * (D + 1) / 2; }
  Index features() const {
    if (module == Module::kBased) return 1 + D + pairs();
    return module == Module::kRebased ? pairs() : D;
  }
};

// Feature f is coefficient x_a x_b, where a factor without index is 1.
template <class T>
struct Feature {
  static constexpr Index kNone = -1;
  T coefficient = 1;
  Index a = kNone, b = kNone;

  __device__ Feature(Map map, Index f) {
    const T root = std::sqrt(static_cast<T>(map.D));
    if (map.module == Module::kBased) {
      if (f == 0) return;
      if (f <= map.D) {
        coefficient = 1 / std::sqrt(root);
        a = f - 1;
        return;
      }
      f -= 1 + map.D;
    } else if (map.module != Module::kRebased) {
      a = f;
      return;
    }
    const T square = map.module == Module::kBased ? std::sqrt(T{0.5}) : T{1};
    const T mixed = map.module == Module::kBased ? T{1} : std::sqrt(T{2});
    coefficient = (f < map.D ? square : mixed) / root;
    if (f < map.D) {
      a = b = f;
      return;
    }
    f -= map.D;
    for (a = 0; f >= map.D - 1 - a; ++a) f -= map.D - 1 - a;
    b = a + 1 + f;
  }
};

// phi_jf = factor times feature f of row j of x
template <class T>
__global__ void features(Matrix<T> phi, Matrix<const T> x, Map map, T factor) {
  const Element at(phi);
  if (!at.inside) return;
  const Feature<T> feature(map, at.c);
  T value = factor * feature.coefficient;
  if (feature.a >= 0) value *= x(at.i, feature.a);
  if (feature.b >= 0) value *= x(at.i, feature.b);
  phi.store(at.i, at.c, value);
}

// d_x_jc += factor sum over f of d_phi_jf d phi_f / d x_c, by the product rule
template <class T>
__global__ void add_feature_gradients(Matrix<T> d_x, Matrix<const T> d_phi, Matrix<const T> x,
                                      Map map, T factor) {
  const Element at(d_x);
  if (!at.inside) return;
  T sum = 0;
  for (Index f = 0; f < d_phi.columns; ++f) {
    const Feature<T> feature(map, f);
    const T d = feature.coefficient * d_phi(at.i, f);
    if (feature.a == at.c) sum += feature.b >= 0 ? d * x(at.i, feature.b) : d;
    if (feature.b == at.c) sum += d * x(at.i, feature.a);
  }
  d_x.add(at.i, at.c, factor * sum);
}

// ---- Layer norm of Rebased: y = gamma n + beta with n = (x - mean) / sqrt(var + 1e-6) ------------

// factor = 1 / sqrt(var + 1e-6) of row j, and n_jc
template <class T>
struct Standard {
  T mean = 0, factor;
  __device__ Standard(Matrix<const T> x, Index j) {
    const T size = static_cast<T>(x.columns);
    T variance = 0;
    for (Index c = 0; c < x.columns; ++c) mean += x(j, c) / size;
    for (Index c = 0; c < x.columns; ++c) variance += (x(j, c) - mean) * (x(j, c) - mean) / size;
    factor = 1 / std::sqrt(variance + static_cast<T>(1e-6));
  }
  __device__ T operator()(T x) const { return (x - mean) * factor; }
};

template <class T>
__global__ void layer_norm(Matrix<T> y, Matrix<const T> x, Matrix<const T> gamma,
                           Matrix<const T> beta) {
  const Element at(y);
  if (!at.inside) return;
  const Standard<T> n(x, at.i);
  y.store(at.i, at.c, gamma(0, at.c) * n(x(at.i, at.c)) + beta(0, at.c));
}

// d_x += factor (d_n - mean of d_n - n times the mean of d_n n), d_n = gamma d_y
template <class T>
__global__ void add_layer_norm_gradients(Matrix<T> d_x, Matrix<const T> d_y, Matrix<const T> x,
                                         Matrix<const T> gamma) {
  const Element at(d_x);
  if (!at.inside) return;
  const Standard<T> n(x, at.i);
  const T size = static_cast<T>(x.columns);
  T mean = 0, along = 0;
  for (Index c = 0; c < x.columns; ++c) {
    mean += gamma(0, c) * d_y(at.i, c) / size;
    along += gamma(0, c) * d_y(at.i, c) * n(x(at.i, c)) / size;
  }
  const T d_n = gamma(0, at.c) * d_y(at.i, at.c);
  d_x.add(at.i, at.c, n.factor * (d_n - mean - n(x(at.i, at.c)) * along));
}

// d_gamma_c += sum over j of d_y_jc n_jc
template <class T>
__global__ void add_gamma_gradients(Matrix<T> d_gamma, Matrix<const T> d_y, Matrix<const T> x) {
  const Element at(d_gamma);
  if (!at.inside) return;
  T sum = 0;
  for (Index j = 0; j < x.rows; ++j) sum += d_y(j, at.c) * Standard<T>(x, j)(x(j, at.c));
  d_gamma.add(0, at.c, sum);
}

// d_beta_c += sum over j of d_y_jc
template <class T>
__global__ void add_beta_gradients(Matrix<T> d_beta, Matrix<const T> d_y) {
  const Element at(d_beta);
  if (!at.inside) return;
  T sum = 0;
  for (Index j = 0; j < d_y.rows; ++j) sum += d_y(j, at.c);
  d_beta.add(0, at.c, sum);
}

}  // namespace sp::SP_GPU::reference
