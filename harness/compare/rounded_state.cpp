// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/rounded_state.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sp {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
double square_of(double x) { return x * x; }

}  // namespace

RoundedState::RoundedState(std::int64_t D, std::int64_t E, bool decays, double w, double drift,
                           std::int64_t sharers)
    : D_(D),
      E_(E),
      decays_(decays),
      log_w_(std::log(w)),
      drift_(drift),
      sharers_(static_cast<double>(sharers)),
      steps_(at(kPending)) {
  for (std::size_t a = 0; a < (decays ? kArrays : kT1); ++a) arrays_.at(a).resize(at(D * E));
  for (Step& step : steps_) {
    for (const auto x : {&Step::decay, &Step::exponent, &Step::x}) (step.*x).resize(at(D));
    step.y.resize(at(E));
  }
}

void RoundedState::reset() {
  pending_ = 0;
  open_ = false;
  faded_ = 0;
  added_.clear();
  first_alive_ = 0;
  for (std::vector<double>& array : arrays_) std::ranges::fill(array, 0.0);
}

void RoundedState::fade(const double* log_decay) {
  if (log_decay == nullptr) return;
  if (pending_ == steps_.size()) apply();
  Step& step = steps_[pending_++];
  step.rounds = false;
  std::ranges::fill(step.x, 0.0);
  std::ranges::fill(step.y, 0.0);
  double slowest = -std::numeric_limits<double>::infinity();
  for (std::int64_t c = 0; c < D_; ++c) {
    step.decay[at(c)] = std::exp(log_decay[c]);
    step.exponent[at(c)] = std::fabs(log_decay[c]) + (log_decay[c] == 0 ? 0 : drift_);
    slowest = std::max(slowest, log_decay[c]);
  }
  faded_ += slowest;
  while (first_alive_ < added_.size() && faded_ - added_[first_alive_] < log_w_) ++first_alive_;
  open_ = true;
}

void RoundedState::add(const double* x, const double* y) {
  if (!open_) {
    if (pending_ == steps_.size()) apply();
    Step& step = steps_[pending_++];
    std::ranges::fill(step.decay, 1.0);
    std::ranges::fill(step.exponent, 0.0);
  }
  Step& step = steps_[pending_ - 1];
  step.rounds = true;
  std::copy_n(x, D_, step.x.begin());
  std::copy_n(y, E_, step.y.begin());
  added_.push_back(faded_);
  open_ = false;
  if (added_.size() % kLook == 0) look();
}

// Keeps every column and row where it is higher than before.
void RoundedState::look() {
  apply();
  std::vector<double> now(at(E_)), before(at(E_));
  for (std::int64_t c = 0; c < D_; ++c) {
    const double *s = row(kS, c), *column = row(kColumns, c), *old = row(kRows, c);
    double row_now = 0, row_before = 0;
    for (std::int64_t e = 0; e < E_; ++e) {
      now[at(e)] += square_of(s[e]);
      before[at(e)] += square_of(column[e]);
      row_now += square_of(s[e]);
      row_before += square_of(old[e]);
    }
    if (row_now > row_before) std::copy_n(s, E_, arrays_[kRows].data() + c * E_);
  }
  for (std::int64_t c = 0; c < D_; ++c) {
    double* column = arrays_[kColumns].data() + c * E_;
    for (std::int64_t e = 0; e < E_; ++e)
      if (now[at(e)] > before[at(e)]) column[e] = row(kS, c)[e];
  }
}

void RoundedState::apply() {
  for (std::int64_t c = 0; c < D_; ++c) decays_ ? apply_to_row<true>(c) : apply_to_row<false>(c);
  pending_ = 0;
  open_ = false;
}

template <bool kDecays>
void RoundedState::apply_to_row(std::int64_t c) {
  constexpr std::int64_t kPiece = 4;  // stays in registers
  std::int64_t e = 0;
  for (; e + kPiece <= E_; e += kPiece) apply_to_piece<kDecays, kPiece>(c, e);
  for (; e < E_; ++e) apply_to_piece<kDecays, 1>(c, e);
}

template <bool kDecays, std::int64_t kCount>
void RoundedState::apply_to_piece(std::int64_t c, std::int64_t e) {
  constexpr std::size_t kUsed = kDecays ? kArrays : kColumns;  // the others stay as they are
  double p[kArrays][kCount] = {};
  for (std::size_t a = 0; a < kUsed; ++a) std::copy_n(row(a, c) + e, kCount, p[a]);
  for (std::size_t n = 0; n < pending_; ++n) {
    const Step& step = steps_[n];
    const double d = step.decay[at(c)], a = step.exponent[at(c)], x = step.x[at(c)];
    const double* y = step.y.data() + e;
    const double d2 = d * d, rounds = step.rounds ? sharers_ : 0, factors = a > 0 ? 2 : 0;
    for (std::int64_t i = 0; i < kCount; ++i) {
      const double term = x * y[i];
      if constexpr (kDecays) {
        p[kL][i] = d * (p[kL][i] + a * p[kS][i]);
        p[kT2][i] = d2 * (p[kT2][i] + a * (2 * p[kT1][i] + a * p[kT0][i]));
        p[kT1][i] = d2 * (p[kT1][i] + a * p[kT0][i]);
        p[kR][i] = d2 * (p[kR][i] + factors * p[kS][i] * p[kS][i]);
        p[kColumns][i] *= d;
        p[kRows][i] *= d;
        p[kS][i] = d * p[kS][i] + term;
        p[kR][i] += rounds * p[kS][i] * p[kS][i];
        p[kT0][i] = d2 * p[kT0][i] + term * term;
      } else {
        p[kS][i] += term;
        p[kR][i] += rounds * p[kS][i] * p[kS][i];
        p[kT0][i] += term * term;
      }
    }
  }
  for (std::size_t a = 0; a < kUsed; ++a)
    std::copy_n(p[a], kCount, arrays_.at(a).data() + c * E_ + e);
}

void RoundedState::prepare(Read& result, std::int64_t size) const {
  result.value.assign(at(size), 0.0);
  result.square.assign(at(size), 0.0);
  result.sum.assign(at(size), 0.0);
  result.alive = static_cast<double>(added_.size() - first_alive_);
}

// terms: of every element the squares of its terms; apart: the squares of all elements, were the products of every term as
// unlike as they can be.
void RoundedState::take_parts(const std::vector<double>& terms, double apart, Read& result) {
  double together = 0;
  for (const double value : result.value) together += value * value;
  const double alike = std::max(1.0, apart > 0 ? together / apart : 1.0);
  for (std::size_t i = 0; i < terms.size(); ++i)
    result.sum[i] = std::max(result.sum[i], alike * terms[i]);
}

void RoundedState::columns(const double* x, Read& result) {
  apply();
  prepare(result, E_);
  for (std::vector<double>* sums : {&products_, &lost_, &highest_, &terms_})
    sums->assign(at(E_), 0.0);
  double norm = 0, apart = 0;
  const auto width = static_cast<double>(D_);
  for (std::int64_t c = 0; c < D_; ++c) {
    const double x2 = x[c] * x[c];
    norm += x2;
    const double *s = row(kS, c), *r = row(kR, c), *t0 = row(kT0, c), *high = row(kColumns, c);
    for (std::int64_t e = 0; e < E_; ++e) {
      result.value[at(e)] += x[c] * s[e];
      result.square[at(e)] += x2 / 3 * (r[e] + width * s[e] * s[e]);
      products_[at(e)] += t0[e];
      highest_[at(e)] += x[c] * high[e];
    }
    if (!decays_) continue;
    const double *t2 = row(kT2, c), *l = row(kL, c);
    for (std::int64_t e = 0; e < E_; ++e) {
      result.square[at(e)] += x2 * (t2[e] + l[e] * l[e]);
      lost_[at(e)] += x[c] * l[e];
      terms_[at(e)] += x2 * t0[e];
      apart += x2 * s[e] * s[e];
    }
  }
  for (std::int64_t e = 0; e < E_; ++e) {
    result.square[at(e)] += norm * products_[at(e)] + lost_[at(e)] * lost_[at(e)];
    result.sum[at(e)] = std::max(square_of(result.value[at(e)]), square_of(highest_[at(e)]));
  }
  if (decays_) take_parts(terms_, apart, result);
}

void RoundedState::rows(const double* y, Read& result) {
  apply();
  prepare(result, D_);
  terms_.assign(at(D_), 0.0);
  double norm = 0, apart = 0;
  const auto width = static_cast<double>(E_);
  for (std::int64_t e = 0; e < E_; ++e) norm += y[e] * y[e];
  for (std::int64_t c = 0; c < D_; ++c) {
    const double *s = row(kS, c), *r = row(kR, c), *t0 = row(kT0, c), *high = row(kRows, c);
    double value = 0, square = 0, products = 0, highest = 0, lost = 0, terms = 0;
    for (std::int64_t e = 0; e < E_; ++e) {
      value += y[e] * s[e];
      square += y[e] * y[e] / 3 * (r[e] + width * s[e] * s[e]);
      products += t0[e];
      highest += y[e] * high[e];
    }
    if (decays_) {
      const double *t2 = row(kT2, c), *l = row(kL, c);
      for (std::int64_t e = 0; e < E_; ++e) {
        square += y[e] * y[e] * (t2[e] + l[e] * l[e]);
        lost += y[e] * l[e];
        terms += y[e] * y[e] * t0[e];
        apart += y[e] * y[e] * s[e] * s[e];
      }
    }
    result.value[at(c)] = value;
    result.square[at(c)] = square + norm * products + lost * lost;
    result.sum[at(c)] = std::max(square_of(value), square_of(highest));
    terms_[at(c)] = terms;
  }
  if (decays_) take_parts(terms_, apart, result);
}

}  // namespace sp
