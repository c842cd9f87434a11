// A value travels with its error e, in units of w: a sum has the sum of the errors, a product ab has
// |a| e_b + |b| e_a, and every operation adds the size of what it rounds. Where an implementation may
// go through features instead of scores, the size is that of the features' products.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/normalised_sizes.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/compare/head_rows.hpp"

namespace sp {
namespace {

using std::int64_t;
using Values = std::vector<double>;

constexpr double kSlack = 32;    // times w: what a denominator may lose
constexpr double kNever = 1e90;  // stands for 1/0, so that 0 times it stays 0

struct Quantity {
  double value = 0, error = 0;
};

// One query or key as the kernel function sees it, and what the layer norm needs to go back.
struct Vector {
  std::vector<Quantity> x, unit;  // unit: (x - mean) / deviation, before gamma and beta
  double reciprocal = 1, reciprocal_error = 0;  // of the deviation; the error is relative
  std::vector<Quantity> gradient;
};

class NormalisedSizes : HeadRows {
 public:
  NormalisedSizes(const Problem& problem, const Inputs& inputs, const Outputs& exact)
      : HeadRows{problem.shape},
        problem_(problem),
        inputs_(inputs),
        exact_(exact),
        based_(problem.module == Module::kBased),
        root_(std::sqrt(static_cast<double>(problem.shape.D))),
        w_(unit_roundoff(accumulator_of(problem.dtype))) {
    for (const auto x : {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v,
                         &Outputs::d_gamma, &Outputs::d_beta})
      errors_.*x = zeros_like(exact.*x);
  }

  Outputs run() {
    for (int64_t b = 0; b < shape.B; ++b) {
      for (int64_t h = 0; h < shape.H; ++h) run_head(b, h);
    }
    return std::move(errors_);
  }

 private:
  bool visible(int64_t b, int64_t j, int64_t i) const {
    if (problem_.mask.causal && i > j) return false;
    const auto& ids = problem_.mask.segment_ids;
    if (ids.empty()) return true;
    for (int64_t n = std::min(i, j); n < std::max(i, j); ++n)
      if (ids[at(b * shape.N + n)] != ids[at(b * shape.N + n + 1)]) return false;
    return true;
  }

  Vector load(const HostTensor& tensor, int64_t row) const {
    Vector result;
    const int64_t D = shape.D;
    result.gradient.resize(at(D));
    for (int64_t c = 0; c < D; ++c) result.x.push_back({tensor.at(row * D + c), 0});
    if (based_) return result;
    double mean = 0, variance = 0, moved = 0;
    for (const Quantity& x : result.x) mean += x.value / static_cast<double>(D);
    const double inexact = D > 1 ? 1 : 0;  // the mean of one value is exact
    for (const Quantity& x : result.x) {
      const double d = x.value - mean, error = inexact * (std::fabs(x.value) + std::fabs(mean));
      variance += d * d / static_cast<double>(D);
      moved += std::fabs(d) * error / static_cast<double>(D);
    }
    const double r = result.reciprocal = 1 / std::sqrt(variance + 1e-6);
    result.reciprocal_error = r * r * moved + 2;
    for (int64_t c = 0; c < D; ++c) {
      const double x = result.x[at(c)].value, gamma = inputs_.gamma.at(c);
      const double unit = (x - mean) * r;
      const double error = inexact * (std::fabs(x) + std::fabs(mean)) * r +
                           std::fabs(unit) * result.reciprocal_error;
      result.unit.push_back({unit, error});
      const double beta = inputs_.beta.at(c);
      result.x[at(c)] = {gamma * unit + beta,
                         std::fabs(gamma) * error + std::fabs(gamma * unit) + std::fabs(beta)};
    }
    return result;
  }

  // The kernel function of a score, its derivatives, and both of absolute values.
  struct Pair {
    Quantity weight, slope;
    double slope_size;  // through features
  };
  Pair pair(const Vector& q, const Vector& k) const {
    double s = 0, size = 0, error = 0;
    for (std::size_t c = 0; c < q.x.size(); ++c) {
      const double a = q.x[c].value, b = k.x[c].value;
      s += a * b;
      size += std::fabs(a * b);
      error += std::fabs(a) * k.x[c].error + std::fabs(b) * q.x[c].error + std::fabs(a * b);
    }
    const double D = root_ * root_;
    if (based_) {
      const double t = s / root_, t_size = size / root_, slope = (1 + t) / root_;
      return {{1 + t + t * t / 2, std::fabs(slope) * error + 1 + t_size + t_size * t_size / 2},
              {slope, error / D + std::fabs(slope)},
              (1 + t_size) / root_};
    }
    return {{s * s / D, 2 * std::fabs(s) * error / D + size * size / D},
            {2 * s / D, 2 * error / D + 2 * std::fabs(s) / D},
            2 * size / D};
  }

  template <class F>
  void for_each_pair(int64_t b, F&& f) const {
    for (int64_t j = 0; j < shape.N; ++j) {
      for (int64_t i = 0; i < shape.N; ++i) {
        if (visible(b, j, i)) f(j, i);
      }
    }
  }

  void run_head(int64_t b, int64_t h) {
    q_.clear();
    k_.clear();
    for (int64_t n = 0; n < shape.N; ++n) {
      q_.push_back(load(inputs_.q, query(b, n, h)));
      k_.push_back(load(inputs_.k, key(b, n, h)));
    }
    forward_head(b, h);
    if (inputs_.d_out.absent()) return;
    gradient_head(b, h);
    backward_head(b, h);
  }

  void forward_head(int64_t b, int64_t h) {
    const int64_t E = shape.E;
    Values numerator(at(shape.N * E));
    denominator_.assign(at(shape.N), {});
    for_each_pair(b, [&](int64_t j, int64_t i) {
      const Pair p = pair(q_[at(j)], k_[at(i)]);
      denominator_[at(j)].value += p.weight.value;
      denominator_[at(j)].error += p.weight.error;
      for (int64_t e = 0; e < E; ++e)
        numerator[at(j * E + e)] += p.weight.error * std::fabs(inputs_.v.at(key(b, i, h) * E + e));
    });
    inverse_.assign(at(shape.N), 0);
    for (int64_t j = 0; j < shape.N; ++j) {
      const double rest =
          denominator_[at(j)].value + problem_.epsilon - kSlack * w_ * denominator_[at(j)].error;
      inverse_[at(j)] = rest > 0 ? 1 / rest : kNever;
      for (int64_t e = 0; e < E; ++e) {
        const int64_t o = query(b, j, h) * E + e;
        const double out = std::fabs(exact_.out.at(o));
        errors_.out.set(
            o,
            (numerator[at(j * E + e)] + out * denominator_[at(j)].error) * inverse_[at(j)] + out);
      }
    }
  }

  // Gradient of the sums: E columns, and the normaliser's.
  void gradient_head(int64_t b, int64_t h) {
    const int64_t E = shape.E;
    d_sums_.assign(at(shape.N * (E + 1)), {});
    for (int64_t j = 0; j < shape.N; ++j) {
      const double inverse = 1 / (denominator_[at(j)].value + problem_.epsilon);
      const double relative = 1 + denominator_[at(j)].error * inverse_[at(j)];
      Quantity& last = d_sums_[at(j * (E + 1) + E)];
      for (int64_t e = 0; e < E; ++e) {
        const int64_t o = query(b, j, h) * E + e;
        const double d = inputs_.d_out.at(o), out = exact_.out.at(o);
        d_sums_[at(j * (E + 1) + e)] = {d * inverse, std::fabs(d) * inverse_[at(j)] * relative};
        last.value -= d * out * inverse;
        last.error +=
            std::fabs(d) * inverse_[at(j)] * (errors_.out.at(o) + std::fabs(out) * relative);
      }
    }
  }

  void backward_head(int64_t b, int64_t h) {
    const int64_t E = shape.E;
    for_each_pair(b, [&](int64_t j, int64_t i) {
      const Pair p = pair(q_[at(j)], k_[at(i)]);
      const Quantity* d_sums = d_sums_.data() + j * (E + 1);
      Quantity d_weight = d_sums[E];
      double d_size = std::fabs(d_weight.value);
      for (int64_t e = 0; e < E; ++e) {
        const int64_t n = key(b, i, h) * E + e;
        const double v = inputs_.v.at(n), g = std::fabs(d_sums[e].value);
        d_weight.value += d_sums[e].value * v;
        d_weight.error += d_sums[e].error * std::fabs(v);
        d_size += g * std::fabs(v);
        add(errors_.d_v, n, p.weight.error * g + std::fabs(p.weight.value) * d_sums[e].error);
      }
      d_weight.error += d_size;
      const Quantity d_score{d_weight.value * p.slope.value,
                             d_weight.error * std::fabs(p.slope.value) +
                                 std::fabs(d_weight.value) * p.slope.error + d_size * p.slope_size};
      add_product(q_[at(j)], d_score, k_[at(i)]);
      add_product(k_[at(i)], d_score, q_[at(j)]);
    });
    for (int64_t n = 0; n < shape.N; ++n) {
      through_norm(q_[at(n)], errors_.d_q, query(b, n, h) * shape.D);
      through_norm(k_[at(n)], errors_.d_k, key(b, n, h) * shape.D);
    }
  }

  // into.gradient += d_score x
  static void add_product(Vector& into, const Quantity& d_score, const Vector& x) {
    for (std::size_t c = 0; c < x.x.size(); ++c) {
      const double value = std::fabs(x.x[c].value);
      into.gradient[c].value += d_score.value * x.x[c].value;
      into.gradient[c].error +=
          d_score.error * value + std::fabs(d_score.value) * (x.x[c].error + value);
    }
  }

  // d_x = (y - mean(y) - unit mean(y unit)) / deviation with y = gamma gradient.
  void through_norm(const Vector& x, HostTensor& d_x, int64_t row) {
    const int64_t D = shape.D;
    if (based_) {
      for (int64_t c = 0; c < D; ++c) add(d_x, row + c, x.gradient[at(c)].error);
      return;
    }
    std::vector<Quantity> y;
    Quantity mean, along;
    for (int64_t c = 0; c < D; ++c) {
      const Quantity &g = x.gradient[at(c)], &unit = x.unit[at(c)];
      const double gamma = inputs_.gamma.at(c), part = 1 / static_cast<double>(D);
      y.push_back({gamma * g.value, std::fabs(gamma) * (g.error + std::fabs(g.value))});
      const double size = std::fabs(y.back().value);
      mean.value += part * y.back().value;
      mean.error += part * (y.back().error + size);
      along.value += part * y.back().value * unit.value;
      along.error += part * (y.back().error * std::fabs(unit.value) +
                             size * (unit.error + std::fabs(unit.value)));
      add(errors_.d_gamma, c,
          g.error * std::fabs(unit.value) +
              std::fabs(g.value) * (unit.error + std::fabs(unit.value)));
      add(errors_.d_beta, c, g.error + std::fabs(g.value));
    }
    for (int64_t c = 0; c < D; ++c) {
      const Quantity& unit = x.unit[at(c)];
      const double u = std::fabs(unit.value), a = std::fabs(along.value);
      const double value = y[at(c)].value - mean.value - unit.value * along.value;
      const double error = y[at(c)].error + mean.error + u * along.error + unit.error * a +
                           std::fabs(y[at(c)].value) + std::fabs(mean.value) + u * a;
      add(d_x, row + c, x.reciprocal * (error + std::fabs(value) * x.reciprocal_error));
    }
  }

  static void add(HostTensor& tensor, int64_t element, double value) {
    tensor.as<double>()[at(element)] += value;
  }

  const Problem& problem_;
  const Inputs& inputs_;
  const Outputs& exact_;
  const bool based_;
  const double root_;  // of D
  const double w_;
  Outputs errors_;
  std::vector<Vector> q_, k_;                   // of one head
  std::vector<Quantity> denominator_, d_sums_;  // of one head
  Values inverse_;                              // of the denominators, at their smallest
};

}  // namespace

Outputs normalised_sizes(const Problem& problem, const Inputs& inputs, const Outputs& exact) {
  return NormalisedSizes(problem, inputs, exact).run();
}

}  // namespace sp
