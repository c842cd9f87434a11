// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/rounded_state.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/compare/rounded_steps.hpp"

namespace sp {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
double square_of(double x) { return x * x; }

}  // namespace

RoundedState::RoundedState(std::int64_t D, std::int64_t E, bool decays, double w, double drift,
                           std::int64_t sharers)
    : D_(D),
      E_(E),
      stride_((E + rounded_steps::kLanes - 1) / rounded_steps::kLanes * rounded_steps::kLanes),
      decays_(decays),
      log_w_(std::log(w)),
      drift_(drift),
      sharers_(static_cast<double>(sharers)),
      decay_(at(kPending * D)),
      exponent_(decay_),
      x_(decay_),
      adds_(at(kPending)),
      y_(at(kPending * stride_)) {
  for (std::size_t a = 0; a < (decays ? kArrays : kT1); ++a) arrays_.at(a).resize(at(D * stride_));
}

void RoundedState::reset() {
  pending_ = 0;
  open_ = false;
  faded_ = 0;
  added_.clear();
  first_alive_ = 0;
  for (std::vector<double>& array : arrays_) std::ranges::fill(array, 0.0);
}

// One that does nothing yet.
std::int64_t RoundedState::new_step() {
  if (pending_ == kPending) apply();
  const std::int64_t n = pending_++;
  std::fill_n(decay_.begin() + n * D_, D_, 1.0);
  std::fill_n(exponent_.begin() + n * D_, D_, 0.0);
  std::fill_n(x_.begin() + n * D_, D_, 0.0);
  std::fill_n(y_.begin() + n * stride_, stride_, 0.0);
  adds_[at(n)] = 0;
  return n;
}

void RoundedState::fade(const double* log_decay) {
  if (log_decay == nullptr) return;
  const std::int64_t first = new_step() * D_;
  double slowest = -std::numeric_limits<double>::infinity();
  for (std::int64_t c = 0; c < D_; ++c) {
    decay_[at(first + c)] = std::exp(log_decay[c]);
    exponent_[at(first + c)] = std::fabs(log_decay[c]) + (log_decay[c] == 0 ? 0 : drift_);
    slowest = std::max(slowest, log_decay[c]);
  }
  faded_ += slowest;
  while (first_alive_ < added_.size() && faded_ - added_[first_alive_] < log_w_) ++first_alive_;
  open_ = true;
}

void RoundedState::add(const double* x, const double* y) {
  const std::int64_t n = open_ ? pending_ - 1 : new_step();
  std::copy_n(x, D_, x_.begin() + n * D_);
  std::copy_n(y, E_, y_.begin() + n * stride_);
  adds_[at(n)] = sharers_;
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
    if (row_now > row_before) std::copy_n(s, E_, arrays_[kRows].data() + c * stride_);
  }
  for (std::int64_t c = 0; c < D_; ++c) {
    double* column = arrays_[kColumns].data() + c * stride_;
    for (std::int64_t e = 0; e < E_; ++e)
      if (now[at(e)] > before[at(e)]) column[e] = row(kS, c)[e];
  }
}

void RoundedState::apply() {
  for (std::int64_t c = 0; c < D_; ++c) {
    const auto array = [&](std::size_t a) {
      return arrays_.at(a).empty() ? nullptr : arrays_.at(a).data() + c * stride_;
    };
    rounded_steps::apply({.s = array(kS),
                          .r = array(kR),
                          .t0 = array(kT0),
                          .columns = array(kColumns),
                          .rows = array(kRows),
                          .t1 = array(kT1),
                          .t2 = array(kT2),
                          .l = array(kL),
                          .size = stride_,
                          .decay = decay_.data() + c,
                          .exponent = exponent_.data() + c,
                          .x = x_.data() + c,
                          .stride = D_,
                          .adds = adds_.data(),
                          .y = y_.data(),
                          .count = pending_});
  }
  pending_ = 0;
  open_ = false;
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
