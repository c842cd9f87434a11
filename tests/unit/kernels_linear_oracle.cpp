// The recurrence over tokens. Numbers carry a bound: the sum of the absolute values of their terms.
// SPDX-License-Identifier: Apache-2.0
#include "kernels_linear_oracle.hpp"

#include <cmath>

namespace sp::test {
namespace {

// x with the sum of the absolute values of what it was added up from.
struct Number {
  double x = 0, terms = 0;
  Number() = default;
  Number(double value) : x(value), terms(std::fabs(value)) {}  // NOLINT: numbers are numbers
  Number(double value, double bound) : x(value), terms(bound) {}
};
Number operator+(Number a, Number b) { return {a.x + b.x, a.terms + b.terms}; }
Number operator-(Number a, Number b) { return {a.x - b.x, a.terms + b.terms}; }
Number operator*(Number a, Number b) { return {a.x * b.x, a.terms * b.terms}; }
Number& operator+=(Number& a, Number b) { return a = a + b; }
using Vector = std::vector<Number>;

Vector row_of(const Values& values, std::int64_t i, std::int64_t b, std::int64_t h) {
  Vector row;
  for (std::int64_t d = 0; d < values.shape[3]; ++d) row.emplace_back(values.at(i, b, h, d));
  return row;
}

void add_row(Bounded& target, std::int64_t i, std::int64_t b, std::int64_t h, const Vector& row) {
  for (std::int64_t d = 0; d < target.value.shape[3]; ++d) {
    target.value.at(i, b, h, d) += row[static_cast<std::size_t>(d)].x;
    target.terms.at(i, b, h, d) += row[static_cast<std::size_t>(d)].terms;
  }
}

// The map of one vector with its transposed Jacobian, by the definitions of the modules.
class Map {
 public:
  Map(const LinearCase& c, const LinearInputs& in) : c_(c), in_(in) {}

  struct Point {
    Vector unscaled, x, phi;
    double inverse = 1;
  };

  Point of(const Vector& raw) const {
    Point p{raw, raw, raw, 1};
    if (c_.module == Module::kRebased) normalise(p, raw);
    if (!is_normalised(c_.module)) return p;
    p.phi.clear();
    for_each_feature([&](std::int64_t a, std::int64_t b, double factor) {
      const Number left = a < 0 ? Number(1) : p.x[static_cast<std::size_t>(a)];
      const Number right = b < 0 ? Number(1) : p.x[static_cast<std::size_t>(b)];
      p.phi.push_back(Number(factor) * left * right);
    });
    return p;
  }

  // From the gradient of phi to that of the vector; adds those of gamma and beta.
  Vector gradient(const Point& p, const Vector& d_phi, LinearResults& results) const {
    if (!is_normalised(c_.module)) return d_phi;
    Vector d_x(p.x.size());
    std::size_t f = 0;
    for_each_feature([&](std::int64_t a, std::int64_t b, double factor) {
      const Number d = Number(factor) * d_phi[f++];
      const auto at = [&](std::int64_t i) { return static_cast<std::size_t>(i); };
      if (a >= 0) d_x[at(a)] += d * (b < 0 ? Number(1) : p.x[at(b)]);
      if (b >= 0) d_x[at(b)] += d * (a < 0 ? Number(1) : p.x[at(a)]);
    });
    return c_.module == Module::kRebased ? through_norm(p, d_x, results) : d_x;
  }

 private:
  template <class F>
  void for_each_feature(F f) const {
    const double D = static_cast<double>(c_.D);
    const bool based = c_.module == Module::kBased;
    if (based) {
      f(-1, -1, 1.0);
      for (std::int64_t a = 0; a < c_.D; ++a) f(a, -1, std::pow(D, -0.25));
    }
    for (std::int64_t a = 0; a < c_.D; ++a) f(a, a, 1 / std::sqrt(based ? 2 * D : D));
    for (std::int64_t a = 0; a < c_.D; ++a) {
      for (std::int64_t b = a + 1; b < c_.D; ++b) f(a, b, std::sqrt((based ? 1 : 2) / D));
    }
  }

  void normalise(Point& p, const Vector& raw) const {
    const double D = static_cast<double>(c_.D);
    double mean = 0, variance = 0;
    for (const Number& x : raw) mean += x.x / D;
    for (const Number& x : raw) variance += (x.x - mean) * (x.x - mean) / D;
    p.inverse = 1 / std::sqrt(variance + 1e-6);
    for (std::size_t d = 0; d < raw.size(); ++d) {
      const std::int64_t at = static_cast<std::int64_t>(d);
      p.unscaled[d] = Number((raw[d].x - mean) * p.inverse);
      p.x[d] = Number(in_.gamma.at(0, 0, 0, at)) * p.unscaled[d] + in_.beta.at(0, 0, 0, at);
    }
  }

  Vector through_norm(const Point& p, const Vector& d_y, LinearResults& results) const {
    const double D = static_cast<double>(c_.D);
    Vector d_gamma, d_beta, dx;
    Number mean, along;
    for (std::size_t d = 0; d < d_y.size(); ++d) {
      d_gamma.push_back(d_y[d] * p.unscaled[d]);
      d_beta.push_back(d_y[d]);
      dx.push_back(Number(in_.gamma.at(0, 0, 0, static_cast<std::int64_t>(d))) * d_y[d]);
      mean += dx[d] * Number(1 / D);
      along += dx[d] * p.unscaled[d] * Number(1 / D);
    }
    add_row(results.d_gamma, 0, 0, 0, d_gamma);
    add_row(results.d_beta, 0, 0, 0, d_beta);
    for (std::size_t d = 0; d < dx.size(); ++d) {
      dx[d] = Number(p.inverse) * (dx[d] - mean - p.unscaled[d] * along);
    }
    return dx;
  }

  const LinearCase& c_;
  const LinearInputs& in_;
};

// One query head of one sequence. Without decay its key head's state is computed once per query
// head; `shared` says whether this one reports it.
class Head {
 public:
  Head(const LinearCase& c, const LinearInputs& in, std::int64_t b, std::int64_t h)
      : c_(c), in_(in), map_(c, in), b_(b), h_(h), g_(h / (c.H / c.G)) {
    s_ = decay_of(c.module) == Decay::kNone ? g_ : h_;
    F_ = static_cast<std::size_t>(features_of(c.module, c.D));
    W_ = static_cast<std::size_t>(width_of(c));
    shared_ = decay_of(c.module) == Decay::kNone && h_ % (c.H / c.G) != 0;
  }

  void forward(LinearResults& results) {
    std::vector<Vector> state = initial(in_.before);
    for (std::int64_t i = 0; i < c_.n; ++i) {
      decay(state, i);
      before_.push_back(state);
      q_.push_back(map_.of(row_of(in_.q, i, b_, h_)));
      load_key(i);
      Vector out(W_);
      for (std::size_t f = 0; f < F_; ++f) {
        for (std::size_t w = 0; w < W_; ++w) {
          state[f][w] += k_.back().phi[f] * v_.back()[w];
          out[w] += Number(in_.scale) * q_.back().phi[f] * state[f][w];
        }
      }
      after_.push_back(state);
      add_row(results.sums, i, b_, h_, out);
    }
    if (!shared_) report(results.after, state);
  }

  void backward(LinearResults& results) const {
    std::vector<Vector> gradient = initial(shared_ ? Values{} : in_.d_after);
    for (std::int64_t i = c_.n - 1; i >= 0; --i) {
      const auto at = static_cast<std::size_t>(i);
      const Vector d_sums = row_of(in_.d_sums, i, b_, h_);
      Vector d_q(F_), d_k(F_), d_v(W_), d_decay(F_);
      for (std::size_t f = 0; f < F_; ++f) {
        for (std::size_t w = 0; w < W_; ++w) {
          const Number d = Number(in_.scale) * d_sums[w];
          gradient[f][w] += q_[at].phi[f] * d;
          d_q[f] += after_[at][f][w] * d;
          d_k[f] += gradient[f][w] * v_[at][w];
          d_v[w] += gradient[f][w] * k_[at].phi[f];
          d_decay[f] += before_[at][f][w] * gradient[f][w];
        }
      }
      add_row(results.d_q, i, b_, h_, map_.gradient(q_[at], d_q, results));
      if (!in_.k.data.empty()) {
        add_row(results.d_k, i, b_, g_, map_.gradient(k_[at], d_k, results));
        add_row(results.d_v, i, b_, g_, d_v);
      }
      add_decay(results, i, d_decay);
      decay(gradient, i);
    }
    report(results.d_before, gradient);
  }

 private:
  void load_key(std::int64_t i) {
    if (in_.k.data.empty()) {  // queries alone
      k_.push_back({{}, {}, Vector(F_), 1});
      v_.emplace_back(W_);
      return;
    }
    k_.push_back(map_.of(row_of(in_.k, i, b_, g_)));
    v_.push_back(row_of(in_.v, i, b_, g_));
    if (W_ > static_cast<std::size_t>(c_.E)) v_.back().emplace_back(1);
  }

  std::vector<Vector> initial(const Values& values) const {
    std::vector<Vector> state(F_, Vector(W_));
    for (std::size_t f = 0; f < F_ && !values.data.empty(); ++f) {
      state[f] = row_of(values, static_cast<std::int64_t>(f), b_, s_);
    }
    return state;
  }

  // Into token i, or out of it against time: 0 where its document begins.
  void decay(std::vector<Vector>& state, std::int64_t i) const {
    const bool kept = !c_.causal || continues(c_, b_, c_.first + i);
    for (std::size_t f = 0; f < F_; ++f) {
      const double factor = kept ? std::exp(log_decay(i, static_cast<std::int64_t>(f))) : 0;
      for (Number& x : state[f]) x = x * Number(factor);
    }
  }

  double log_decay(std::int64_t i, std::int64_t f) const {
    switch (decay_of(c_.module)) {
      case Decay::kPerChannel:
        return in_.log_decay.at(i, b_, h_, f);
      case Decay::kPerHead:
        return in_.log_decay.at(0, 0, h_, 0);
      case Decay::kNone:
        break;
    }
    return 0;
  }

  // The kernels form it from sums of q dq - k dk over the tokens that follow: those are its terms.
  void add_decay(LinearResults& results, std::int64_t i, const Vector& d_decay) const {
    if (decay_of(c_.module) == Decay::kPerChannel) add_row(results.d_log_decay, i, b_, h_, d_decay);
    if (decay_of(c_.module) != Decay::kPerHead) return;
    for (const Number& d : d_decay) add_row(results.d_log_decay, 0, 0, h_, {d});
  }

  void report(Bounded& target, const std::vector<Vector>& state) const {
    for (std::size_t f = 0; f < F_; ++f) {
      add_row(target, static_cast<std::int64_t>(f), b_, s_, state[f]);
    }
  }

  const LinearCase& c_;
  const LinearInputs& in_;
  const Map map_;
  std::int64_t b_, h_, g_, s_;
  std::size_t F_, W_;
  bool shared_;  // another query head reports the state, and has its gradient
  std::vector<Map::Point> q_, k_;
  std::vector<Vector> v_;
  std::vector<std::vector<Vector>> before_, after_;  // states around each token, before_ decayed
};

// Sums of all that the kernels add up for the decay of a token: the terms from it to the end.
void bound_decay(const LinearCase& c, const LinearInputs& in, LinearResults& results) {
  if (decay_of(c.module) == Decay::kNone || in.k.data.empty()) return;
  for (std::int64_t b = 0; b < c.B; ++b) {
    for (std::int64_t h = 0; h < c.H; ++h) {
      const std::int64_t g = h / (c.H / c.G);
      double per_head = 0;
      for (std::int64_t d = 0; d < c.D; ++d) {
        double sum = 0;
        for (std::int64_t w = 0; w < width_of(c) && !in.d_after.data.empty(); ++w) {
          sum += results.after.terms.at(d, b, h, w) * std::fabs(in.d_after.at(d, b, h, w));
        }
        for (std::int64_t i = c.n - 1; i >= 0; --i) {
          sum += std::fabs(in.q.at(i, b, h, d)) * results.d_q.terms.at(i, b, h, d) +
                 std::fabs(in.k.at(i, b, g, d)) * results.d_k.terms.at(i, b, g, d);
          per_head += sum;
          if (c.module == Module::kGla) results.d_log_decay.terms.at(i, b, h, d) = sum;
        }
      }
      if (c.module != Module::kGla) results.d_log_decay.terms.at(0, 0, h, 0) += per_head;
    }
  }
}

}  // namespace

std::int32_t id_of(const LinearCase& c, std::int64_t b, std::int64_t position) {
  return static_cast<std::int32_t>((position + 3 * b) / c.document % 2);
}

bool continues(const LinearCase& c, std::int64_t b, std::int64_t position) {
  if (position == 0) return false;
  return c.document == 0 || id_of(c, b, position) == id_of(c, b, position - 1);
}

LinearResults plain_linear(const LinearCase& c, const LinearInputs& in) {
  const std::int64_t W = width_of(c);
  const Tensor::Extents state{features_of(c.module, c.D), c.B, state_heads_of(c), W};
  LinearResults results;
  results.sums = Bounded({c.n, c.B, c.H, W});
  results.after = results.d_before = Bounded(state);
  results.d_q = Bounded({c.n, c.B, c.H, c.D});
  results.d_k = Bounded({c.n, c.B, c.G, c.D});
  results.d_v = Bounded({c.n, c.B, c.G, W});
  results.d_gamma = results.d_beta = Bounded({1, 1, 1, c.D});
  if (decay_of(c.module) == Decay::kPerHead) results.d_log_decay = Bounded({1, 1, c.H, 1});
  if (decay_of(c.module) == Decay::kPerChannel) results.d_log_decay = Bounded({c.n, c.B, c.H, c.D});
  for (std::int64_t b = 0; b < c.B; ++b) {
    for (std::int64_t h = 0; h < c.H; ++h) {
      Head head(c, in, b, h);
      head.forward(results);
      head.backward(results);
    }
  }
  bound_decay(c, in, results);
  return results;
}

}  // namespace sp::test
