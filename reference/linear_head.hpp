// One query head of one batch element as linear attention sees it: features, values with the
// normaliser's column, decays and cotangents of a token, widened when they are asked for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/feature_map.hpp"
#include "reference/problem/problem.hpp"
#include "reference/vectors.hpp"

namespace sp::reference {

class Head {
 public:
  Head(const Problem& problem, const Inputs& inputs, const FeatureMap& map, Index b, Index h);

  const Index N, F, W;  // W = E, and one column of ones more with a normaliser

  // Tokens j - 1 and j exist and belong to one document: a state passes between them.
  bool joined(Index j) const;
  void decay(Index j, double* a) const;    // [F], what a state loses between tokens j - 1 and j
  void query(Index j, double* phi) const;  // [F], times scale
  void key(Index j, double* phi) const;    // [F]
  void value(Index j, double* v) const;    // [W]

  // out [E] from the sums [W] of query j; remembers what d_sums needs.
  void output(Index j, const double* sums, double* out);
  void d_sums(Index j, double* d) const;  // [W], after output(j)
  // From gradients of the features; add to d_q and d_k [D], and to d_gamma and d_beta.
  void d_query(Index j, Values d_phi, double* d_q);
  void d_key(Index j, const Values& d_phi, double* d_k);
  Values d_gamma, d_beta;  // [D]

 private:
  Index query_row(Index j) const { return (b_ * N + j) * problem_.shape.H + h_; }
  Index key_row(Index j) const { return (b_ * N + j) * problem_.shape.G + g_; }

  const Problem& problem_;
  const Inputs& inputs_;
  const FeatureMap& map_;
  Index b_, h_, g_;
  bool normalised_;
  Decay kind_;
  double head_decay_ = 1;
  Values denominator_, delta_;  // [N] with a normaliser: sum of weights + epsilon, <d_out, out>
};

}  // namespace sp::reference
