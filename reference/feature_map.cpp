// SPDX-License-Identifier: Apache-2.0
#include "reference/feature_map.hpp"

#include <cmath>

namespace sp::reference {
namespace {

constexpr double kNormEpsilon = 1e-6;

// phi = square x_a^2 for every a, then mixed x_a x_b for every a < b.
void products(const double* x, Index D, double square, double mixed, double* phi) {
  for (Index a = 0; a < D; ++a) *phi++ = square * x[a] * x[a];
  for (Index a = 0; a < D; ++a)
    for (Index b = a + 1; b < D; ++b) *phi++ = mixed * x[a] * x[b];
}

void products_backward(const double* x, Index D, double square, double mixed, const double* d_phi,
                       double* d_x) {
  for (Index a = 0; a < D; ++a) d_x[a] += 2 * square * x[a] * *d_phi++;
  for (Index a = 0; a < D; ++a) {
    for (Index b = a + 1; b < D; ++b, ++d_phi) {
      d_x[a] += mixed * x[b] * *d_phi;
      d_x[b] += mixed * x[a] * *d_phi;
    }
  }
}

}  // namespace

LayerNorm layer_norm(const Problem& problem, const Inputs& inputs) {
  if (problem.module != Module::kRebased) return {};
  const Index D = problem.shape.D;
  return {doubles(inputs.gamma, {D}), doubles(inputs.beta, {D})};
}

double LayerNorm::standardise(const double* x, double* normal) const {
  const Index D = std::ssize(gamma_);
  double mean = 0, variance = 0;
  for (Index c = 0; c < D; ++c) mean += x[c] / static_cast<double>(D);
  for (Index c = 0; c < D; ++c) variance += (x[c] - mean) * (x[c] - mean) / static_cast<double>(D);
  const double factor = 1 / std::sqrt(variance + kNormEpsilon);
  for (Index c = 0; c < D; ++c) normal[c] = (x[c] - mean) * factor;
  return factor;
}

void LayerNorm::apply(const double* x, double* y) const {
  standardise(x, y);
  for (std::size_t c = 0; c < gamma_.size(); ++c) y[c] = gamma_[c] * y[c] + beta_[c];
}

// With n the standardised x and f its factor: d_x = f (d_n - mean(d_n) - n mean(d_n n)).
void LayerNorm::backward(const double* x, const double* d_y, double* d_x, double* d_gamma,
                         double* d_beta) const {
  const auto D = static_cast<double>(gamma_.size());
  Values normal(gamma_.size());
  const double factor = standardise(x, normal.data());
  double mean = 0, along = 0;
  for (std::size_t c = 0; c < gamma_.size(); ++c) {
    mean += gamma_[c] * d_y[c] / D;
    along += gamma_[c] * d_y[c] * normal[c] / D;
    d_gamma[c] += d_y[c] * normal[c];
    d_beta[c] += d_y[c];
  }
  for (std::size_t c = 0; c < gamma_.size(); ++c)
    d_x[c] += factor * (gamma_[c] * d_y[c] - mean - normal[c] * along);
}

FeatureMap::FeatureMap(const Problem& problem, const Inputs& inputs)
    : module_(problem.module.value()), D_(problem.shape.D), norm_(layer_norm(problem, inputs)) {}

Index FeatureMap::features() const {
  if (module_ == Module::kBased) return 1 + D_ + D_ * (D_ + 1) / 2;
  return module_ == Module::kRebased ? D_ * (D_ + 1) / 2 : D_;
}

void FeatureMap::apply(const double* x, double* phi) const {
  const double root = std::sqrt(static_cast<double>(D_));
  if (module_ == Module::kBased) {
    *phi++ = 1;
    for (Index a = 0; a < D_; ++a) *phi++ = x[a] / std::sqrt(root);
    products(x, D_, std::sqrt(0.5) / root, 1 / root, phi);
  } else if (module_ == Module::kRebased) {
    Values y(static_cast<std::size_t>(D_));
    norm_.apply(x, y.data());
    products(y.data(), D_, 1 / root, std::sqrt(2.0) / root, phi);
  } else {
    for (Index a = 0; a < D_; ++a) phi[a] = x[a];
  }
}

void FeatureMap::backward(const double* x, const double* d_phi, double* d_x, double* d_gamma,
                          double* d_beta) const {
  const double root = std::sqrt(static_cast<double>(D_));
  if (module_ == Module::kBased) {
    ++d_phi;  // the constant
    for (Index a = 0; a < D_; ++a) d_x[a] += *d_phi++ / std::sqrt(root);
    products_backward(x, D_, std::sqrt(0.5) / root, 1 / root, d_phi, d_x);
  } else if (module_ == Module::kRebased) {
    Values y(static_cast<std::size_t>(D_)), d_y(y.size());
    norm_.apply(x, y.data());
    products_backward(y.data(), D_, 1 / root, std::sqrt(2.0) / root, d_phi, d_y.data());
    norm_.backward(x, d_y.data(), d_x, d_gamma, d_beta);
  } else {
    for (Index a = 0; a < D_; ++a) d_x[a] += d_phi[a];
  }
}

}  // namespace sp::reference
