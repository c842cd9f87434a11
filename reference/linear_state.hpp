// The state of linear attention: a decayed sum of outer products, S = diag(a) S + x yT per token.
//
// Steps are put off and applied many at a time, a piece of a row of S after the other, so that it
// stays in registers; every element still sees its additions in the order of the tokens.
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
  static constexpr Index kPending = 32, kPiece = 16;

  void apply() {
    for (Index f = 0; f < F_; ++f) {
      bool decays = false;
      for (Index t = 0; t < pending_; ++t) decays = decays || a_.data()[t * F_ + f] != 1;
      // Without decays: the same bits for two thirds of the time.
      decays ? apply_to_row<true>(f) : apply_to_row<false>(f);
    }
    pending_ = 0;
  }
  template <bool kDecays>
  void apply_to_row(Index f) {
    Index w = 0;
    for (; w + kPiece <= W_; w += kPiece) apply_to_piece<kDecays, kPiece>(f, w);
    for (; w < W_; ++w) apply_to_piece<kDecays, 1>(f, w);
  }
  template <bool kDecays, Index kCount>
  void apply_to_piece(Index f, Index w) {
    double* const piece = values_.data() + f * W_ + w;
    double s[kCount];
    std::copy_n(piece, kCount, s);
    for (Index t = 0; t < pending_; ++t) {
      const double a = a_.data()[t * F_ + f], x = x_.data()[t * F_ + f];
      const double* y = y_.data() + t * W_ + w;
      for (Index i = 0; i < kCount; ++i) s[i] = (kDecays ? a * s[i] : s[i]) + x * y[i];
    }
    std::copy_n(s, kCount, piece);
  }

  Index F_, W_, pending_ = 0;
  Values values_;  // [F, W]
  Values a_, x_;   // [kPending, F]
  Values y_;       // [kPending, W]
};

}  // namespace sp::reference
