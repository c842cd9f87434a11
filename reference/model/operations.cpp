// SPDX-License-Identifier: Apache-2.0
#include "reference/model/operations.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sp::reference {
namespace {

// y_i = f(x_i), d_x_i += df(x_i) d_y_i
template <class F, class DF>
Variable element_wise(Tape& tape, const Variable& x, F f, DF df) {
  const Variable y = make(x->rows, x->columns);
  std::transform(x->value.begin(), x->value.end(), y->value.begin(), f);
  tape.add([=] {
    for (std::size_t i = 0; i < x->size(); ++i) x->gradient[i] += df(x->value[i]) * y->gradient[i];
  });
  return y;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

Variable project(Tape& tape, const Variable& x, const Variable& weight, const Variable& bias) {
  SP_CHECK(x->columns == weight->columns, "a projection takes vectors of its own length");
  const Variable y = make(x->rows, weight->rows);
  const Index from = weight->columns, to = weight->rows;
  for (Index i = 0; i < x->rows; ++i) {
    for (Index o = 0; o < to; ++o)
      y->row(i)[o] =
          dot(x->row(i), weight->row(o), from) + (bias ? bias->value[std::size_t(o)] : 0);
  }
  tape.add([=] {
    for (Index i = 0; i < x->rows; ++i) {
      for (Index o = 0; o < to; ++o) {
        const double d = y->d_row(i)[o];
        add_scaled(x->d_row(i), d, weight->row(o), from);
        add_scaled(weight->d_row(o), d, x->row(i), from);
        if (bias) bias->d_row(0)[o] += d;
      }
    }
  });
  return y;
}

Variable add(Tape& tape, const Variable& x, const Variable& y) {
  SP_CHECK(x->rows == y->rows && x->columns == y->columns, "summands have one shape");
  const Variable sum = make(x->rows, x->columns);
  std::transform(x->value.begin(), x->value.end(), y->value.begin(), sum->value.begin(),
                 std::plus<>());
  tape.add([=] {
    const Index size = x->rows * x->columns;
    add_scaled(x->gradient.data(), 1, sum->gradient.data(), size);
    add_scaled(y->gradient.data(), 1, sum->gradient.data(), size);
  });
  return sum;
}

Variable multiply(Tape& tape, const Variable& x, const Variable& y) {
  SP_CHECK(x->rows == y->rows && x->columns == y->columns, "factors have one shape");
  const Variable product = make(x->rows, x->columns);
  std::transform(x->value.begin(), x->value.end(), y->value.begin(), product->value.begin(),
                 std::multiplies<>());
  tape.add([=] {
    for (std::size_t i = 0; i < x->size(); ++i) {
      x->gradient[i] += y->value[i] * product->gradient[i];
      y->gradient[i] += x->value[i] * product->gradient[i];
    }
  });
  return product;
}

Variable silu(Tape& tape, const Variable& x) {
  return element_wise(
      tape, x, [](double v) { return v * sigmoid(v); },
      [](double v) { return sigmoid(v) * (1 + v * (1 - sigmoid(v))); });
}

Variable gelu(Tape& tape, const Variable& x) {
  const auto cumulative = [](double v) { return 0.5 * std::erfc(-v / std::numbers::sqrt2); };
  return element_wise(
      tape, x, [=](double v) { return v * cumulative(v); },
      [=](double v) {
        constexpr double kDensity = 0.5 * std::numbers::inv_sqrtpi * std::numbers::sqrt2;
        return cumulative(v) + v * kDensity * std::exp(-v * v / 2);
      });
}

Variable tanh(Tape& tape, const Variable& x) {
  return element_wise(
      tape, x, [](double v) { return std::tanh(v); },
      [](double v) { return 1 / (std::cosh(v) * std::cosh(v)); });
}

Variable log_sigmoid(Tape& tape, const Variable& x, double factor) {
  return element_wise(
      tape, x,
      [=](double v) { return factor * (std::min(v, 0.0) - std::log1p(std::exp(-std::fabs(v)))); },
      [=](double v) { return factor * sigmoid(-v); });
}

Variable rms_norm(Tape& tape, const Variable& x, const Variable& gain, double epsilon) {
  const Index size = gain->columns, runs = size == 0 ? 0 : x->rows * x->columns / size;
  SP_CHECK(x->columns % size == 0, "a norm of whole runs");
  const Variable y = make(x->rows, x->columns);
  const auto factor = [=](const double* v) {
    return 1 / std::sqrt(dot(v, v, size) / static_cast<double>(size) + epsilon);
  };
  for (Index run = 0; run < runs; ++run) {
    const double* v = x->value.data() + run * size;
    for (Index c = 0; c < size; ++c)
      y->value[std::size_t(run * size + c)] = v[c] * factor(v) * gain->row(0)[c];
  }
  tape.add([=] {
    for (Index run = 0; run < runs; ++run) {
      const double* v = x->value.data() + run * size;
      const double* d_y = y->gradient.data() + run * size;
      double* d_v = x->gradient.data() + run * size;
      const double r = factor(v);
      double along = 0;  // <d_y gain, v>
      for (Index c = 0; c < size; ++c) along += d_y[c] * gain->row(0)[c] * v[c];
      for (Index c = 0; c < size; ++c) {
        gain->d_row(0)[c] += d_y[c] * v[c] * r;
        d_v[c] += r * d_y[c] * gain->row(0)[c] - r * r * r * along * v[c] / double(size);
      }
    }
  });
  return y;
}

Variable layer_norm(Tape& tape, const Variable& x, const Variable& gain, const Variable& bias,
                    double epsilon) {
  const Index size = x->columns;
  SP_CHECK(gain->columns == size && bias->columns == size, "a norm of whole rows");
  const Variable y = make(x->rows, size), normal = make(x->rows, size);
  Values factors;
  for (Index i = 0; i < x->rows; ++i) {
    const double* v = x->row(i);
    double mean = 0, variance = 0;
    for (Index c = 0; c < size; ++c) mean += v[c] / double(size);
    for (Index c = 0; c < size; ++c) variance += (v[c] - mean) * (v[c] - mean) / double(size);
    factors.push_back(1 / std::sqrt(variance + epsilon));
    for (Index c = 0; c < size; ++c) {
      normal->row(i)[c] = (v[c] - mean) * factors.back();
      y->row(i)[c] = normal->row(i)[c] * gain->row(0)[c] + bias->row(0)[c];
    }
  }
  tape.add([=] {
    for (Index i = 0; i < x->rows; ++i) {
      const double *d_y = y->d_row(i), *n = normal->row(i);
      double mean = 0, along = 0;  // of d_y gain, and of it with the normal
      for (Index c = 0; c < size; ++c) {
        const double d_n = d_y[c] * gain->row(0)[c];
        mean += d_n / double(size);
        along += d_n * n[c] / double(size);
        gain->d_row(0)[c] += d_y[c] * n[c];
        bias->d_row(0)[c] += d_y[c];
      }
      for (Index c = 0; c < size; ++c)
        x->d_row(i)[c] +=
            factors[std::size_t(i)] * (d_y[c] * gain->row(0)[c] - mean - along * n[c]);
    }
  });
  return y;
}

Variable rotate(Tape& tape, const Variable& x, Index size, double base,
                const std::vector<Index>& positions) {
  SP_CHECK(size % 2 == 0 && x->columns % size == 0, "pairs of channels turn");
  SP_CHECK(std::ssize(positions) == x->rows, "a position for every row");
  const Variable y = make(x->rows, x->columns);
  const auto turn = [=](const double* from, double* to, Index row, double sign) {
    for (Index c = 0; c < size / 2; ++c) {
      const double frequency = std::pow(base, -2.0 * double(c) / double(size));
      const double angle = sign * double(positions[std::size_t(row)]) * frequency;
      for (Index head = 0; head < x->columns; head += size) {
        const double a = from[head + c], b = from[head + c + size / 2];
        to[head + c] += a * std::cos(angle) - b * std::sin(angle);
        to[head + c + size / 2] += a * std::sin(angle) + b * std::cos(angle);
      }
    }
  };
  for (Index i = 0; i < x->rows; ++i) turn(x->row(i), y->row(i), i, 1);
  tape.add([=] {
    for (Index i = 0; i < x->rows; ++i) turn(y->d_row(i), x->d_row(i), i, -1);
  });
  return y;
}

Variable look_up(Tape& tape, const Variable& table, const std::vector<std::int32_t>& ids) {
  const Variable y = make(std::ssize(ids), table->columns);
  const auto for_each = [=](auto&& f) {
    for (Index i = 0; i < std::ssize(ids); ++i)
      if (ids[std::size_t(i)] >= 0) f(i, Index{ids[std::size_t(i)]});
  };
  for_each([&](Index i, Index id) { std::copy_n(table->row(id), y->columns, y->row(i)); });
  tape.add([=] {
    for_each([&](Index i, Index id) { add_scaled(table->d_row(id), 1, y->d_row(i), y->columns); });
  });
  return y;
}

Variable pick_rows(Tape& tape, const Variable& x, const std::vector<Index>& rows) {
  const Variable y = make(std::ssize(rows), x->columns);
  for (Index i = 0; i < y->rows; ++i)
    std::copy_n(x->row(rows[std::size_t(i)]), x->columns, y->row(i));
  tape.add([=] {
    for (Index i = 0; i < y->rows; ++i)
      add_scaled(x->d_row(rows[std::size_t(i)]), 1, y->d_row(i), x->columns);
  });
  return y;
}

Variable cross_entropy(Tape& tape, const Variable& logits, const std::vector<std::int32_t>& targets,
                       const std::vector<double>& weights) {
  SP_CHECK(std::ssize(targets) == logits->rows && std::ssize(weights) == logits->rows,
           "a target and a weight for every row");
  const Variable loss = make(1, 1);
  const auto log_sum_exp = [=](Index i) {
    const double* row = logits->row(i);
    const double largest = *std::max_element(row, row + logits->columns);
    double sum = 0;
    for (Index c = 0; c < logits->columns; ++c) sum += std::exp(row[c] - largest);
    return largest + std::log(sum);
  };
  for (Index i = 0; i < logits->rows; ++i) {
    const double weight = weights[std::size_t(i)];
    if (weight != 0)
      loss->value[0] += weight * (log_sum_exp(i) - logits->row(i)[targets[std::size_t(i)]]);
  }
  tape.add([=] {
    for (Index i = 0; i < logits->rows; ++i) {
      const double d = loss->gradient[0] * weights[std::size_t(i)];
      if (d == 0) continue;
      const double lse = log_sum_exp(i);
      for (Index c = 0; c < logits->columns; ++c)
        logits->d_row(i)[c] += d * std::exp(logits->row(i)[c] - lse);
      logits->d_row(i)[targets[std::size_t(i)]] -= d;
    }
  });
  return loss;
}

}  // namespace sp::reference
