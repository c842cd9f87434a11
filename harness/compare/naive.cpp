// Naive attention: complete score rows, one pass of plain loops per equation.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/naive.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <span>
#include <vector>

#include "reference/problem/error.hpp"

namespace sp {
namespace {

using std::int64_t;

template <class T>  // float or double
struct Naive {
  using Array = std::vector<T>;

  const Problem& problem;
  const bool sizes = false;  // of the terms too
  const Shape s = problem.shape;
  const int64_t M = problem.projected > 0 ? problem.projected : s.N;  // keys that queries look at

  static Array load(const HostTensor& tensor) {
    Array values(static_cast<std::size_t>(tensor.size()));
    visit_dtype(tensor.dtype(), [&]<class S>() {
      const std::span<const S> stored = tensor.as<S>();
      for (std::size_t n = 0; n < values.size(); ++n) values[n] = static_cast<T>(widen(stored[n]));
    });
    return values;
  }

  static HostTensor store(const Array& values, std::vector<int64_t> shape) {
    HostTensor tensor(DType::kF64, std::move(shape));
    SP_CHECK(static_cast<std::size_t>(tensor.size()) == values.size(), "wrong shape");
    for (std::size_t n = 0; n < values.size(); ++n)
      tensor.as<double>()[n] = static_cast<double>(values[n]);
    return tensor;
  }

  static Array zeros(int64_t a, int64_t b, int64_t c = 1, int64_t d = 1) {
    return Array(static_cast<std::size_t>(a * b * c * d));
  }

  T rounded_to_storage(T value) const {
    return visit_dtype(problem.dtype,
                       [&]<class S>() { return static_cast<T>(widen(narrow<S>(value))); });
  }

  // |x|, raised to where rounding to storage becomes absolute.
  T size_of_term(T x) const {
    const T smallest = problem.dtype == DType::kF16 ? T{0x1p-14} : T{0};
    return std::max(std::fabs(x), smallest);
  }

  bool hidden(int64_t b, int64_t i, int64_t j) const {
    const Mask& mask = problem.mask;
    const auto* ids = mask.segment_ids.data() + (mask.segment_ids.empty() ? 0 : b * s.N);
    return (mask.causal && i < j) || (mask.window != 0 && std::llabs(j - i) > mask.window - 1) ||
           (!mask.segment_ids.empty() && ids[i] != ids[j]);
  }

  // x [B, N, width] and projection [N, K'] to [B, K', width]
  Array project(const Array& x, const Array& projection, int64_t width) const {
    Array y = zeros(s.B, M, width);
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t m = 0; m < M; ++m)
        for (int64_t c = 0; c < width; ++c) {
          T sum = 0;
          for (int64_t n = 0; n < s.N; ++n)
            sum += projection.data()[n * M + m] * x.data()[(b * s.N + n) * width + c];
          y.data()[(b * M + m) * width + c] = sum;
        }
    return y;
  }

  Array project_backward_x(const Array& d_y, const Array& projection, int64_t width) const {
    Array d_x = zeros(s.B, s.N, width);
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t n = 0; n < s.N; ++n)
        for (int64_t c = 0; c < width; ++c) {
          T sum = 0;
          for (int64_t m = 0; m < M; ++m)
            sum += projection.data()[n * M + m] * d_y.data()[(b * M + m) * width + c];
          d_x.data()[(b * s.N + n) * width + c] = sum;
        }
    return d_x;
  }

  Array project_backward_matrix(const Array& d_y, const Array& x, int64_t width) const {
    Array d_projection = zeros(s.N, M);
    for (int64_t n = 0; n < s.N; ++n)
      for (int64_t m = 0; m < M; ++m) {
        T sum = 0;
        for (int64_t b = 0; b < s.B; ++b)
          for (int64_t c = 0; c < width; ++c)
            sum += x.data()[(b * s.N + n) * width + c] * d_y.data()[(b * M + m) * width + c];
        d_projection.data()[n * M + m] = sum;
      }
    return d_projection;
  }

  // scores[j] = scale <q, k_j>, -inf where hidden
  void score_row(int64_t b, int64_t i, int64_t h, const Array& q, const Array& k,
                 Array& scores) const {
    const T* query = q.data() + ((b * s.N + i) * s.H + h) * s.D;
    const int64_t g = h * s.G / s.H;
    for (int64_t j = 0; j < M; ++j) {
      const T* key = k.data() + ((b * M + j) * s.G + g) * s.D;
      T sum = 0;
      for (int64_t c = 0; c < s.D; ++c) sum += query[c] * key[c];
      scores.data()[j] = hidden(b, i, j) ? -std::numeric_limits<T>::infinity()
                                         : static_cast<T>(problem.scale) * sum;
    }
  }

  void forward(const Array& q, const Array& k, const Array& v, Array& out, Array& lse,
               Array& out_size) const {
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    Array row = zeros(M, 1);
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t i = 0; i < s.N; ++i)
        for (int64_t h = 0; h < s.H; ++h) {
          T* result = out.data() + ((b * s.N + i) * s.H + h) * s.E;
          score_row(b, i, h, q, k, row);
          T top = kNothing, sum = 0;
          for (const T score : row) top = score > top ? score : top;
          for (T& score : row) sum += score = score == kNothing ? T{0} : std::exp(score - top);
          for (int64_t j = 0; j < M; ++j)
            for (int64_t c = 0; c < s.E; ++c)
              result[c] += row.data()[j] * v.data()[((b * M + j) * s.G + h * s.G / s.H) * s.E + c];
          for (int64_t c = 0; c < s.E; ++c) result[c] = top == kNothing ? T{0} : result[c] / sum;
          for (int64_t j = 0; sizes && j < M; ++j) {
            if (row.data()[j] == 0) continue;
            const T p = size_of_term(row.data()[j] / sum);
            for (int64_t c = 0; c < s.E; ++c)
              out_size.data()[((b * s.N + i) * s.H + h) * s.E + c] +=
                  p * std::fabs(v.data()[((b * M + j) * s.G + h * s.G / s.H) * s.E + c]);
          }
          lse.data()[(b * s.H + h) * s.N + i] = top == kNothing ? kNothing : top + std::log(sum);
        }
  }

  struct Gradients {
    Array q, k, v;
    Array q_size, k_size, v_size;
    std::vector<double> per_query, per_key, probability;  // sums of |d_score|, |d_score| and p
  };

  static double largest(const auto& values) {
    double most = 0;
    for (const auto value : values) most = std::max(most, std::fabs(static_cast<double>(value)));
    return most;
  }

  Gradients backward(const Array& q, const Array& k, const Array& v, const Array& out,
                     const Array& lse, const Array& d_out, const Array& out_size) const {
    const auto queries = static_cast<std::size_t>(s.B * s.N * s.H);
    const auto keys = static_cast<std::size_t>(s.B * M * s.G);
    Gradients d;
    d.q = d.q_size = Array(q.size());
    d.k = d.k_size = Array(k.size());
    d.v = d.v_size = Array(v.size());
    d.per_query.resize(queries);
    d.per_key.resize(keys);
    d.probability.resize(keys);
    Array row = zeros(M, 1);
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t h = 0; h < s.H; ++h)
        for (int64_t i = 0; i < s.N; ++i) {
          const int64_t query = (b * s.N + i) * s.H + h;
          score_row(b, i, h, q, k, row);
          T delta = 0, delta_size = 0;  // what rounding p does to out, it does to delta
          for (int64_t c = query * s.E; c < (query + 1) * s.E; ++c) {
            delta += d_out.data()[c] * rounded_to_storage(out.data()[c]);
            if (sizes) delta_size += std::fabs(d_out.data()[c]) * out_size.data()[c];
          }
          for (int64_t j = 0; j < M; ++j) {
            if (hidden(b, i, j)) continue;
            const int64_t key = (b * M + j) * s.G + h * s.G / s.H;
            const T p = std::exp(row.data()[j] - lse.data()[(b * s.H + h) * s.N + i]);
            T d_p = 0;
            for (int64_t c = 0; c < s.E; ++c) {
              d_p += d_out.data()[query * s.E + c] * v.data()[key * s.E + c];
              d.v.data()[key * s.E + c] += p * d_out.data()[query * s.E + c];
            }
            const T d_score = static_cast<T>(problem.scale) * (p * (d_p - delta));
            d.per_query[static_cast<std::size_t>(query)] += std::fabs(d_score);
            d.per_key[static_cast<std::size_t>(key)] += std::fabs(d_score);
            d.probability[static_cast<std::size_t>(key)] += p;
            for (int64_t c = 0; c < s.D; ++c) {
              d.q.data()[query * s.D + c] += d_score * k.data()[key * s.D + c];
              d.k.data()[key * s.D + c] += d_score * q.data()[query * s.D + c];
            }
            if (sizes)
              add_sizes(d, query, key, p, size_of_term(p * (d_p - delta)) + p * delta_size, q, k,
                        d_out);
          }
        }
    return d;
  }

  void add_sizes(Gradients& d, int64_t query, int64_t key, T p, T d_score_size, const Array& q,
                 const Array& k, const Array& d_out) const {
    const T p_size = size_of_term(p);
    const T d_size = std::fabs(static_cast<T>(problem.scale)) * d_score_size;
    for (int64_t c = 0; c < s.E; ++c)
      d.v_size.data()[key * s.E + c] += p_size * std::fabs(d_out.data()[query * s.E + c]);
    for (int64_t c = 0; c < s.D; ++c) {
      d.q_size.data()[query * s.D + c] += d_size * std::fabs(k.data()[key * s.D + c]);
      d.k_size.data()[key * s.D + c] += d_size * std::fabs(q.data()[query * s.D + c]);
    }
  }

  NaiveOutputs run(const Inputs& inputs) const {
    const bool projected = problem.projected > 0;
    const int64_t k_width = s.G * s.D, v_width = s.G * s.E;
    const Array q = load(inputs.q), x_k = load(inputs.k), x_v = load(inputs.v);
    const Array projection_k = load(inputs.projection_k), projection_v = load(inputs.projection_v);
    const Array k = projected ? project(x_k, projection_k, k_width) : x_k;
    const Array v = projected ? project(x_v, projection_v, v_width) : x_v;
    Array out = zeros(s.B, s.N, s.H, s.E), lse = zeros(s.B, s.H, s.N), out_size = out;
    forward(q, k, v, out, lse, out_size);
    NaiveOutputs result;
    result.largest_key = largest(k);
    result.largest_value = largest(v);
    result.out = store(out, {s.B, s.N, s.H, s.E});
    result.lse = store(lse, {s.B, s.H, s.N});
    if (sizes) result.sizes.out = store(out_size, {s.B, s.N, s.H, s.E});
    if (inputs.d_out.absent()) return result;

    const Gradients d = backward(q, k, v, out, lse, load(inputs.d_out), out_size);
    result.d_scores_per_query = largest(d.per_query);
    result.d_scores_per_key = largest(d.per_key);
    result.probability_per_key = largest(d.probability);
    result.d_q = store(d.q, {s.B, s.N, s.H, s.D});
    result.d_k = store(projected ? project_backward_x(d.k, projection_k, k_width) : d.k,
                       {s.B, s.N, s.G, s.D});
    result.d_v = store(projected ? project_backward_x(d.v, projection_v, v_width) : d.v,
                       {s.B, s.N, s.G, s.E});
    if (sizes) {
      result.sizes.d_q = store(d.q_size, {s.B, s.N, s.H, s.D});
      result.sizes.d_k = store(d.k_size, {s.B, s.N, s.G, s.D});
      result.sizes.d_v = store(d.v_size, {s.B, s.N, s.G, s.E});
    }
    if (projected) {
      result.d_projection_k = store(project_backward_matrix(d.k, x_k, k_width), {s.N, M});
      result.d_projection_v = store(project_backward_matrix(d.v, x_v, v_width), {s.N, M});
    }
    return result;
  }
};

}  // namespace

NaiveOutputs naive_attention(const Problem& problem, const Inputs& inputs, Operands operands) {
  if (accumulator_of(problem.dtype) == DType::kF64) return Naive<double>{problem}.run(inputs);
  const bool rounded = operands == Operands::kStorage && problem.dtype != DType::kF32;
  return Naive<float>{problem, rounded && problem.projected == 0}.run(inputs);
}

}  // namespace sp
