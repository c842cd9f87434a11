// The double reference against the same equations in 113-bit arithmetic, written with matrices.
//
// Independent on purpose: whole probability matrices instead of rows, the softmax derivative by its
// definition instead of delta, gradients of every head before they are summed over the group.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <quadmath.h>

#include <cmath>
#include <iostream>
#include <vector>

#include "reference/attention.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp::test {
namespace {

__extension__ typedef __float128 Quad;
using Index = std::int64_t;

struct Matrix {
  Index rows, columns;
  std::vector<Quad> values = std::vector<Quad>(static_cast<std::size_t>(rows * columns));
  Quad& operator()(Index r, Index c) { return values[static_cast<std::size_t>(r * columns + c)]; }
  const Quad& operator()(Index r, Index c) const {
    return values[static_cast<std::size_t>(r * columns + c)];
  }
};

Matrix transposed(const Matrix& a) {
  Matrix t{a.columns, a.rows};
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.columns; ++c) t(c, r) = a(r, c);
  return t;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c{a.rows, b.columns};
  for (Index i = 0; i < a.rows; ++i)
    for (Index j = 0; j < b.columns; ++j)
      for (Index x = 0; x < a.columns; ++x) c(i, j) += a(i, x) * b(x, j);
  return c;
}

// One head of one batch element of [B, N, heads, size], as a matrix [N, size], and back (added).
Matrix head_of(const HostTensor& x, Index b, Index head) {
  const Index N = x.extent(1), heads = x.extent(2), size = x.extent(3);
  Matrix m{N, size};
  for (Index i = 0; i < N; ++i)
    for (Index c = 0; c < size; ++c) m(i, c) = Quad(x.at(((b * N + i) * heads + head) * size + c));
  return m;
}

struct QuadTensor {
  explicit QuadTensor(std::vector<Index> extents) : tensor(DType::kF64, std::move(extents)) {
    values.resize(static_cast<std::size_t>(tensor.size()));
  }
  HostTensor tensor;
  std::vector<Quad> values;

  void add_head(const Matrix& m, Index b, Index head) {
    const Index N = tensor.extent(1), heads = tensor.extent(2), size = tensor.extent(3);
    for (Index i = 0; i < N; ++i)
      for (Index c = 0; c < size; ++c)
        values[static_cast<std::size_t>(((b * N + i) * heads + head) * size + c)] += m(i, c);
  }
  HostTensor rounded() {
    for (Index n = 0; n < tensor.size(); ++n)
      tensor.set(n, static_cast<double>(values[static_cast<std::size_t>(n)]));
    return tensor;
  }
};

Matrix matrix_of(const HostTensor& x) {
  Matrix m{x.extent(0), x.extent(1)};
  for (Index n = 0; n < x.size(); ++n) m.values[static_cast<std::size_t>(n)] = Quad(x.at(n));
  return m;
}

bool allowed(const Problem& p, Index b, Index i, Index j) {
  const bool past = !p.mask.causal || i - j >= 0;
  const bool near = p.mask.window == 0 || (j - i < p.mask.window && i - j < p.mask.window);
  const auto id = [&](Index t) {
    return p.mask.segment_ids.at(static_cast<std::size_t>(b * p.shape.N + t));
  };
  return past && near && (p.mask.segment_ids.empty() || id(i) == id(j));
}

Outputs quad_attention(const Problem& problem, const Inputs& inputs) {
  const auto [B, N, H, G, D, E] = problem.shape;
  const bool projected = problem.family() == Family::kProjectedSoftmax;
  const Quad scale = Quad(problem.scale);
  QuadTensor out({B, N, H, E}), lse({B, H, N, 1});
  QuadTensor d_q({B, N, H, D}), d_k({B, N, G, D}), d_v({B, N, G, E});
  QuadTensor d_pk({1, N, 1, problem.projected}), d_pv({1, N, 1, problem.projected});
  for (Index b = 0; b < B; ++b)
    for (Index h = 0; h < H; ++h) {
      const Index g = h * G / H;
      const Matrix q = head_of(inputs.q, b, h), d_out = head_of(inputs.d_out, b, h);
      const Matrix x_k = head_of(inputs.k, b, g), x_v = head_of(inputs.v, b, g);
      const Matrix p_k = projected ? matrix_of(inputs.projection_k) : Matrix{0, 0};
      const Matrix p_v = projected ? matrix_of(inputs.projection_v) : Matrix{0, 0};
      const Matrix k = projected ? product(transposed(p_k), x_k) : x_k;
      const Matrix v = projected ? product(transposed(p_v), x_v) : x_v;

      Matrix p = product(q, transposed(k));
      for (Index i = 0; i < N; ++i) {
        const auto seen = [&](Index j) { return projected || allowed(problem, b, i, j); };
        Quad sum = 0, shift = -1e300;  // exp reaches 11355 only, the scores of a test go beyond
        for (Index j = 0; j < p.columns; ++j)
          if (seen(j)) shift = fmaxq(shift, scale * p(i, j));
        for (Index j = 0; j < p.columns; ++j) {
          p(i, j) = seen(j) ? expq(scale * p(i, j) - shift) : Quad(0);
          sum += p(i, j);
        }
        for (Index j = 0; j < p.columns; ++j) p(i, j) /= sum;
        lse.values[static_cast<std::size_t>((b * H + h) * N + i)] = shift + logq(sum);
      }
      out.add_head(product(p, v), b, h);

      const Matrix d_p = product(d_out, transposed(v));
      Matrix d_s{N, p.columns};
      for (Index i = 0; i < N; ++i)
        for (Index j = 0; j < p.columns; ++j) {
          for (Index x = 0; x < p.columns; ++x)  // the softmax Jacobian p_j ([x = j] - p_x)
            d_s(i, j) += scale * p(i, j) * ((x == j ? Quad(1) : Quad(0)) - p(i, x)) * d_p(i, x);
        }
      d_q.add_head(product(d_s, k), b, h);
      const Matrix d_keys = product(transposed(d_s), q), d_values = product(transposed(p), d_out);
      d_k.add_head(projected ? product(p_k, d_keys) : d_keys, b, g);
      d_v.add_head(projected ? product(p_v, d_values) : d_values, b, g);
      if (!projected) continue;
      d_pk.add_head(product(x_k, transposed(d_keys)), 0, 0);
      d_pv.add_head(product(x_v, transposed(d_values)), 0, 0);
    }
  Outputs result{out.rounded(),
                 HostTensor(DType::kF64, {B, H, N}),
                 d_q.rounded(),
                 d_k.rounded(),
                 d_v.rounded(),
                 {},
                 {}};
  const auto reshaped = [](const HostTensor& x, std::vector<Index> shape) {
    HostTensor y(DType::kF64, std::move(shape));
    for (Index n = 0; n < x.size(); ++n) y.set(n, x.at(n));
    return y;
  };
  result.lse = reshaped(lse.rounded(), {B, H, N});
  if (projected) {
    result.d_projection_k = reshaped(d_pk.rounded(), {N, problem.projected});
    result.d_projection_v = reshaped(d_pv.rounded(), {N, problem.projected});
  }
  return result;
}

// Error relative to the natural scale of each tensor. The bound n u of a plain sum of n ~ 30 terms
// is 3e-15, and a gradient is a sum of such sums; 1e-13 leaves one factor of ten.
constexpr double kLimit = 1e-13;

TEST(Reference, AgreesWithQuadruplePrecisionForAnyProblem) {
  double worst = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const Case c = any_case(seed, DType::kF64);
    SCOPED_TRACE(name(c, seed));
    const double error = relative_difference(reference::attention(c.problem, c.inputs),
                                             quad_attention(c.problem, c.inputs));
    ASSERT_TRUE(error <= kLimit) << error;
    worst = std::max(worst, error);
  }
  std::cout << "worst error " << worst << ", limit " << kLimit << ": " << kLimit / worst
            << " times better\n";
}

TEST(Reference, AgreesWithQuadruplePrecisionForLongRows) {
  Case c;
  c.problem.shape = {1, 150, 2, 1, 16, 8};
  c.problem.dtype = DType::kF64;
  c.problem.scale = default_scale(c.problem.shape);
  c.inputs = Draw(7).inputs(c.problem);
  const double error = relative_difference(reference::attention(c.problem, c.inputs),
                                           quad_attention(c.problem, c.inputs));
  ASSERT_TRUE(error <= kLimit) << error;
}

// A score s carries an error of about |s| u, and a weight that factor: the bound grows by max |s|.
TEST(Reference, AgreesWithQuadruplePrecisionForScoresOfTenThousand) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    Case c = any_case(seed, DType::kF64, 12);
    c.problem.scale = 1e3;
    SCOPED_TRACE(name(c, seed));
    const Outputs result = reference::attention(c.problem, c.inputs);
    const double error = relative_difference(result, quad_attention(c.problem, c.inputs));
    ASSERT_TRUE(error <= kLimit * largest(result.lse)) << error;
  }
}

}  // namespace
}  // namespace sp::test
