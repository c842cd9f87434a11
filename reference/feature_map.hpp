// Feature maps of linear attention: phi with weight(q, k) = <phi(q), phi(k)>, and their gradients.
//
// Based     F = 1 + D + D(D+1)/2; order 1, x_a, x_a^2, x_a x_b (a < b, row by row)
// Rebased   F = D(D+1)/2; order y_a^2, y_a y_b (a < b), of the layer norm y
// others    the identity, F = D
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/problem/problem.hpp"
#include "reference/vectors.hpp"

namespace sp::reference {

// y = gamma (x - mean) / sqrt(var + 1e-6) + beta over the D elements of x.
class LayerNorm {
 public:
  LayerNorm() = default;
  LayerNorm(Values gamma, Values beta) : gamma_(std::move(gamma)), beta_(std::move(beta)) {}

  void apply(const double* x, double* y) const;
  // Adds to d_x, d_gamma and d_beta, all [D].
  void backward(const double* x, const double* d_y, double* d_x, double* d_gamma,
                double* d_beta) const;

 private:
  // (x - mean) / sqrt(var + 1e-6) into `normal`; returns 1 / sqrt(var + 1e-6).
  double standardise(const double* x, double* normal) const;
  Values gamma_, beta_;  // [D]
};
LayerNorm layer_norm(const Problem& problem, const Inputs& inputs);  // empty unless Rebased

class FeatureMap {
 public:
  FeatureMap(const Problem& problem, const Inputs& inputs);

  Index features() const;                          // F
  void apply(const double* x, double* phi) const;  // [D] -> [F]
  // Adds to d_x [D] and, for Rebased, to d_gamma and d_beta [D].
  void backward(const double* x, const double* d_phi, double* d_x, double* d_gamma,
                double* d_beta) const;

 private:
  Module module_;
  Index D_;
  LayerNorm norm_;
};

}  // namespace sp::reference
