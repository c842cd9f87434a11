// What works on rows alone: norms, rotary positions, activations, gates, and the optimiser.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <numbers>

#include "optimized/kernels/cpu/cpu_dense_kernels.hpp"
#include "optimized/kernels/cpu/row_access.hpp"

namespace sp {
namespace {

template <class T>
T sigmoid(T x) {
  return 1 / (1 + std::exp(-x));
}
// Phi(x), of the normal distribution.
template <class T>
T cumulative(T x) {
  return std::erfc(-x / std::numbers::sqrt2_v<T>) / 2;
}

template <class T>
T value_of(Activation f, T x) {
  switch (f) {
    case Activation::kSilu:
      return x * sigmoid(x);
    case Activation::kGelu:
      return x * cumulative(x);
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kLogSigmoid:
      return std::min(x, T{0}) - std::log1p(std::exp(-std::fabs(x)));
  }
  return x;
}

template <class T>
T slope_of(Activation f, T x) {
  switch (f) {
    case Activation::kSilu: {
      const T s = sigmoid(x);
      return s * (1 + x * (1 - s));
    }
    case Activation::kGelu: {
      constexpr T kDensity =
          std::numbers::inv_sqrtpi_v<T> * std::numbers::sqrt2_v<T> / 2;  // of x = 0
      return cumulative(x) + x * kDensity * std::exp(-x * x / 2);
    }
    case Activation::kTanh: {
      const T t = std::tanh(x);
      return 1 - t * t;
    }
    case Activation::kLogSigmoid:
      return sigmoid(-x);
  }
  return 1;
}

template <class T>
T mean_of(const T* row, std::int64_t count) {
  T sum = 0;
  for (std::int64_t c = 0; c < count; ++c) sum += row[c];
  return sum / static_cast<T>(count);
}

}  // namespace

void CpuDenseKernels::do_norm(const Tensor& y, const Tensor& x, const Tensor& gain,
                              const Tensor& bias, const NormRows& rows, double epsilon) {
  visit_accumulator(rows.inverse.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, x);
    RowWriter<T> write(scratch_, Slot::kOut, y);
    const T* const gains = RowReader<T>(scratch_, Slot::kKey, gain)(0);
    const T* const biases =
        bias.defined() ? RowReader<T>(scratch_, Slot::kValue, bias)(0) : nullptr;
    const std::int64_t C = read.columns();
    for (std::int64_t i = 0; i < read.rows(); ++i) {
      const T* const from = read(i);
      const T mean = biases != nullptr ? mean_of(from, C) : T{0};
      T squares = 0;
      for (std::int64_t c = 0; c < C; ++c) squares += (from[c] - mean) * (from[c] - mean);
      const T inverse = 1 / std::sqrt(squares / static_cast<T>(C) + static_cast<T>(epsilon));
      rows.inverse.as<T>()[i] = inverse;
      if (biases != nullptr) rows.mean.as<T>()[i] = mean;
      T* const to = write(i);
      for (std::int64_t c = 0; c < C; ++c) {
        to[c] = (from[c] - mean) * inverse * gains[c];
        if (biases != nullptr) to[c] += biases[c];
      }
      write.done(i);
    }
  });
}

// With n the normalised row and g = d_y gain: d_x = inverse (g - n mean(g n) [- mean(g)]).
void CpuDenseKernels::do_norm_backward(const Tensor& d_x, const Tensor& d_gain,
                                       const Tensor& d_bias, const Tensor& d_y, const Tensor& x,
                                       const Tensor& gain, const NormRows& rows) {
  visit_accumulator(d_x.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, x), read_d(scratch_, Slot::kGradient, d_y);
    const T* const gains = RowReader<T>(scratch_, Slot::kKey, gain)(0);
    const std::int64_t C = read.columns();
    for (std::int64_t i = 0; i < read.rows(); ++i) {
      const T *from = read(i), *d = read_d(i);
      const T inverse = rows.inverse.as<T>()[i];
      const T mean = rows.mean.defined() ? rows.mean.as<T>()[i] : T{0};
      T along = 0, total = 0;
      for (std::int64_t c = 0; c < C; ++c) {
        const T normal = (from[c] - mean) * inverse;
        along += d[c] * gains[c] * normal;
        total += d[c] * gains[c];
        d_gain.as<T>()[c] += d[c] * normal;
        if (d_bias.defined()) d_bias.as<T>()[c] += d[c];
      }
      along /= static_cast<T>(C);
      total = rows.mean.defined() ? total / static_cast<T>(C) : T{0};
      T* const to = d_x.as<T>() + i * C;
      for (std::int64_t c = 0; c < C; ++c)
        to[c] += inverse * (d[c] * gains[c] - (from[c] - mean) * inverse * along - total);
    }
  });
}

// Angles in double, whatever the type: a position times a frequency has no room in f32 beyond 2^24.
void CpuDenseKernels::do_rotate(const Tensor& y, const Tensor& x, const Tokens& tokens, double base,
                                int sign) {
  const std::int64_t rows = x.extent(1) * x.extent(2), half = x.extent(3) / 2;
  visit_accumulator(x.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, x);
    RowWriter<T> write(scratch_, Slot::kOut, y);
    T* const cosines = scratch_.get<T>(Slot::kKey, half);
    T* const sines = scratch_.get<T>(Slot::kValue, half);
    double* const frequencies = scratch_.get<double>(Slot::kGates, half);
    for (std::int64_t c = 0; c < half; ++c)
      frequencies[c] = std::pow(base, -static_cast<double>(c) / static_cast<double>(half));
    std::int64_t token = 0;
    for (const Run& run : tokens.runs()) {
      for (std::int64_t k = 0; k < run.count; ++k, ++token) {
        for (std::int64_t c = 0; c < half; ++c) {
          const double angle = static_cast<double>(run.position(k)) * frequencies[c];
          cosines[c] = static_cast<T>(std::cos(angle));
          sines[c] = static_cast<T>(sign * std::sin(angle));
        }
        for (std::int64_t i = token * rows; i < (token + 1) * rows; ++i) {
          const T* const from = read(i);
          T* const to = write(i);
          for (std::int64_t c = 0; c < half; ++c) {
            const T a = from[c], b = from[c + half];
            to[c] = a * cosines[c] - b * sines[c];
            to[c + half] = a * sines[c] + b * cosines[c];
          }
          write.done(i);
        }
      }
    }
  });
}

void CpuDenseKernels::do_activate(const Tensor& y, const Tensor& x, Activation f, double factor) {
  visit_accumulator(x.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, x);
    RowWriter<T> write(scratch_, Slot::kOut, y);
    for (std::int64_t i = 0; i < read.rows(); ++i) {
      const T* const from = read(i);
      T* const to = write(i);
      for (std::int64_t c = 0; c < read.columns(); ++c)
        to[c] = static_cast<T>(factor) * value_of(f, from[c]);
      write.done(i);
    }
  });
}

void CpuDenseKernels::do_activate_backward(const Tensor& d_x, const Tensor& d_y, const Tensor& x,
                                           Activation f, double factor) {
  visit_accumulator(x.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, x), read_d(scratch_, Slot::kGradient, d_y);
    RowWriter<T> write(scratch_, Slot::kOut, d_x);
    for (std::int64_t i = 0; i < read.rows(); ++i) {
      const T *from = read(i), *d = read_d(i);
      T* const to = write(i);
      for (std::int64_t c = 0; c < read.columns(); ++c)
        to[c] = static_cast<T>(factor) * slope_of(f, from[c]) * d[c];
      write.done(i);
    }
  });
}

void CpuDenseKernels::do_gate(const Tensor& y, const Tensor& gates, const Tensor& x) {
  visit_accumulator(x.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, x), read_gates(scratch_, Slot::kKey, gates);
    RowWriter<T> write(scratch_, Slot::kOut, y);
    for (std::int64_t i = 0; i < read.rows(); ++i) {
      const T *from = read(i), *gate = read_gates(i);
      T* const to = write(i);
      for (std::int64_t c = 0; c < read.columns(); ++c)
        to[c] = value_of(Activation::kSilu, gate[c]) * from[c];
      write.done(i);
    }
  });
}

void CpuDenseKernels::do_gate_backward(const Tensor& d_gates, const Tensor& d_x, const Tensor& d_y,
                                       const Tensor& gates, const Tensor& x) {
  visit_accumulator(x.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, x), read_gates(scratch_, Slot::kKey, gates);
    RowReader<T> read_d(scratch_, Slot::kGradient, d_y);
    RowWriter<T> write_gates(scratch_, Slot::kKeyGradient, d_gates);
    RowWriter<T> write(scratch_, Slot::kValueGradient, d_x);
    for (std::int64_t i = 0; i < read.rows(); ++i) {
      const T *from = read(i), *gate = read_gates(i), *d = read_d(i);
      T *const to_gates = write_gates(i), *const to = write(i);
      for (std::int64_t c = 0; c < read.columns(); ++c) {
        const T g = gate[c], v = from[c], dy = d[c];  // any of the results may be an operand
        to_gates[c] = slope_of(Activation::kSilu, g) * v * dy;
        to[c] = value_of(Activation::kSilu, g) * dy;
      }
      write_gates.done(i), write.done(i);
    }
  });
}

void CpuDenseKernels::do_add_squares(const Tensor& sum, const Tensor& x) {
  visit_accumulator(sum.dtype(), [&]<class T>() {
    RowReader<T> read(scratch_, Slot::kQuery, x);
    double squares = 0;
    for (std::int64_t i = 0; i < read.rows(); ++i) {
      const T* const row = read(i);
      for (std::int64_t c = 0; c < read.columns(); ++c)
        squares += static_cast<double>(row[c]) * static_cast<double>(row[c]);
    }
    *sum.as<T>() += static_cast<T>(squares);
  });
}

void CpuDenseKernels::do_adamw(const Tensor& parameter, const Tensor& first, const Tensor& second,
                               const Tensor& gradient, const AdamStep& s) {
  visit_accumulator(parameter.dtype(), [&]<class T>() {
    const auto [beta1, beta2] = std::pair(static_cast<T>(s.beta1), static_cast<T>(s.beta2));
    const T shrink = static_cast<T>(s.rate * s.decay), rate = static_cast<T>(s.rate);
    for (std::int64_t i = 0; i < parameter.elements(); ++i) {
      const T g = gradient.as<T>()[i] * static_cast<T>(s.gradient_factor);
      T &m = first.as<T>()[i], &v = second.as<T>()[i], &w = parameter.as<T>()[i];
      m = beta1 * m + static_cast<T>(1 - s.beta1) * g;
      v = beta2 * v + static_cast<T>(1 - s.beta2) * g * g;
      const T size = std::sqrt(v / static_cast<T>(s.second_bias)) + static_cast<T>(s.epsilon);
      w -= shrink * w + rate * (m / static_cast<T>(s.first_bias) / size);
    }
  });
}

}  // namespace sp
