// Letters: n a token, m a projected key, c an element of all key heads together; width = G D or G E.
// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/projected_truth.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "harness/compare/head_rows.hpp"
#include "harness/compare/softmax_rows.hpp"

namespace sp {
namespace {

using std::int64_t;

struct Sum {
  double exact = 0, variance = 0, low = 0, high = 0;
  void add(double factor, double x, double x_size, double w) {
    exact += factor * x;
    variance +=
        factor * factor * x_size * x_size + w * w * (exact * exact / 3 + factor * factor * x * x);
    low = std::min(low, exact);
    high = std::max(high, exact);
  }
  double size(double w) const { return std::hypot(std::sqrt(variance), w * (high - low)); }
};

// One of the two: keys or values.
struct Projection {
  int64_t B, N, M, heads, size;
  double w;
  Doubles matrix, x;  // [N, M], [B, N, width]
  int64_t width() const { return heads * size; }

  template <class F>
  Sized all(int64_t rows, int64_t columns, F&& f) const {
    Sized result(rows * columns);
    for (int64_t i = 0; i < rows * columns; ++i) {
      const Sum sum = f(i / columns, i % columns);
      result.exact[at(i)] = sum.exact;
      result.size[at(i)] = sum.size(w);
    }
    return result;
  }
  Sized projected() const {  // [B, M, width]
    return all(B * M, width(), [&](int64_t bm, int64_t c) {
      Sum sum;
      for (int64_t n = 0; n < N; ++n)
        sum.add(matrix[at(n * M + bm % M)], x[at((bm / M * N + n) * width() + c)], 0, w);
      return sum;
    });
  }
  Sized d_x(const Sized& d_y) const {  // [B, N, width]
    return all(B * N, width(), [&](int64_t bn, int64_t c) {
      Sum sum;
      for (int64_t m = 0; m < M; ++m) {
        const std::size_t of = at((bn / N * M + m) * width() + c);
        sum.add(matrix[at(bn % N * M + m)], d_y.exact[of], d_y.size[of], w);
      }
      return sum;
    });
  }
  Sized d_matrix(const Sized& d_y) const {  // [N, M]
    return all(N, M, [&](int64_t n, int64_t m) {
      Sum sum;
      for (int64_t b = 0; b < B; ++b)
        for (int64_t c = 0; c < width(); ++c) {
          const std::size_t of = at((b * M + m) * width() + c);
          sum.add(x[at((b * N + n) * width() + c)], d_y.exact[of], d_y.size[of], w);
        }
      return sum;
    });
  }
  // Error of an element of every projected row of a head: [B, M, heads].
  Doubles errors(const Sized& y) const {
    Doubles result(at(B * M * heads));
    for (std::size_t row = 0; row < result.size(); ++row) {
      const double* begin = y.size.data() + row * at(size);
      result[row] = std::sqrt(std::inner_product(begin, begin + size, begin, 0.0) /
                              static_cast<double>(size));
    }
    return result;
  }
};

}  // namespace

SoftmaxTruth projected_truth(const Problem& problem, const Inputs& inputs) {
  const Shape& s = problem.shape;
  const int64_t M = problem.projected;
  const double w = unit_roundoff(accumulator_of(problem.dtype));
  const Projection of_k{
      s.B, s.N, M, s.G, s.D, w, doubles_of(inputs.projection_k), doubles_of(inputs.k)};
  const Projection of_v{
      s.B, s.N, M, s.G, s.E, w, doubles_of(inputs.projection_v), doubles_of(inputs.v)};
  const Sized k = of_k.projected(), v = of_v.projected();
  const SoftmaxInputs arrays{problem,
                             M,
                             doubles_of(inputs.q),
                             k.exact,
                             v.exact,
                             doubles_of(inputs.d_out),
                             of_k.errors(k),
                             of_v.errors(v),
                             Operands::kAccumulator,  // scores of projected keys stay in f32
                             !inputs.d_out.absent()};
  std::vector<int64_t> queries(at(s.N)), keys(at(M));
  std::iota(queries.begin(), queries.end(), 0);
  std::iota(keys.begin(), keys.end(), 0);
  SoftmaxRows rows = softmax_rows(arrays, queries, keys);
  const auto [d_k, d_v] = std::pair{std::move(rows.d_k), std::move(rows.d_v)};
  if (rows.backward) rows.d_k = of_k.d_x(d_k), rows.d_v = of_v.d_x(d_v);
  SoftmaxTruth truth = truth_of(problem, rows, s.N);
  if (inputs.d_out.absent()) return truth;
  store(truth, &Outputs::d_projection_k, of_k.d_matrix(d_k), {s.N, M});
  store(truth, &Outputs::d_projection_v, of_v.d_matrix(d_v), {s.N, M});
  return truth;
}

}  // namespace sp
