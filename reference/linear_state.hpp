// The state of linear attention: a decayed sum of outer products, S = diag(a) S + x yT per token.
//
// Steps are put off and applied many at a time, one row of S after the other, so that a row stays
// in the cache; every element still sees its additions in the order of the tokens.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "reference/vectors.hpp"

namespace sp::reference {

class State {
 public:
  State(Index features, Index width)
      : F_(features),
        W_(width),
        values_(static_cast<std::size_t>(F_ * W_)),
        a_(static_cast<std::size_t>(kPending * F_)),
        x_(a_.size()),
        y_(static_cast<std::size_t>(kPending * W_)) {}

  void reset() {
    pending_ = 0;
    std::fill(values_.begin(), values_.end(), 0.0);
  }
  void assign(const Values& values) {
    pending_ = 0;
    values_ = values;
  }

  // S = diag(a) S + x yT
  void step(const double* a, const double* x, const double* y) {
    if (pending_ == kPending) apply();
    std::copy_n(a, F_, a_.begin() + pending_ * F_);
    std::copy_n(x, F_, x_.begin() + pending_ * F_);
    std::copy_n(y, W_, y_.begin() + pending_ * W_);
    ++pending_;
  }

  const Values& values() {  // [F, W]
    apply();
    return values_;
  }
  void add_columns(const double* p, double* z) {  // z [W] += ST p
    const double* row = values().data();
    for (Index f = 0; f < F_; ++f, row += W_) add_scaled(z, p[f], row, W_);
  }
  void add_rows(const double* p, double* z) {  // z [F] += S p
    const double* row = values().data();
    for (Index f = 0; f < F_; ++f, row += W_) z[f] += dot(row, p, W_);
  }

 private:
  static constexpr Index kPending = 32;

  void apply() {
    double* row = values_.data();
    for (Index f = 0; f < F_; ++f, row += W_) {
      for (Index t = 0; t < pending_; ++t) {
        const double a = a_.data()[t * F_ + f], x = x_.data()[t * F_ + f];
        const double* y = y_.data() + t * W_;
        if (a == 1) {  // the same bits for two thirds of the time
          add_scaled(row, x, y, W_);
          continue;
        }
        for (Index w = 0; w < W_; ++w) row[w] = a * row[w] + x * y[w];
      }
    }
    pending_ = 0;
  }

  Index F_, W_, pending_ = 0;
  Values values_;  // [F, W]
  Values a_, x_;   // [kPending, F]
  Values y_;       // [kPending, W]
};

}  // namespace sp::reference
