// The books of softmax attention and of Linformer's projections, pair by pair.
// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>

#include "harness/ledger/books.hpp"

namespace sp::ledger {
namespace {

using std::int64_t;

// The definition of the mask (reference/problem/problem.hpp), word for word.
bool sees(const Problem& problem, int64_t b, int64_t i, int64_t j) {
  if (problem.projected > 0) return true;
  const Mask& mask = problem.mask;
  const auto id = [&](int64_t n) {
    return mask.segment_ids[static_cast<std::size_t>(b * problem.shape.N + n)];
  };
  return (!mask.causal || j <= i) && (mask.window == 0 || std::llabs(i - j) < mask.window) &&
         (mask.segment_ids.empty() || id(i) == id(j));
}

struct Projection {
  Sum into, back, own;
  Entries Books::* projected;
  HostTensor Outputs::* d_x;
  HostTensor Outputs::* d_projection;
  HostTensor Inputs::* projection;
  Operand operand;
  int64_t columns;
};

void count_projection(Books& books, const Projection& p) {
  const Shape& s = books.problem.shape;
  const int64_t M = books.problem.projected;
  Entries& projected = books.*p.projected;
  projected = Entries(s.B, s.G, M);
  Entries d_rows(s.B, s.G, s.N);
  HostTensor d_projection(DType::kF64, {s.N, M}), projection(DType::kF64, {s.N, M});
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t m = 0; m < M; ++m) {
      int64_t sum = 0;
      for (int64_t b = 0; b < s.B; ++b) {
        for (int64_t g = 0; g < s.G; ++g) {
          projected(b, g, m) += {Weights(p.into, b, g, n)[m], 1};
          d_rows(b, g, n) += {Weights(p.back, b, g, n)[m], 1};
          sum += Weights(p.own, b, g, n)[m];
        }
      }
      d_projection.set(n * M + m, static_cast<double>(sum));
      projection.set(n * M + m, encode({p.operand, 0, n, m}, 0));
    }
  }
  books.inputs.*p.projection = std::move(projection);
  books.outputs.*p.d_projection = std::move(d_projection);
  books.outputs.*p.d_x = tabulate(
      s.B, s.N, s.G, p.columns,
      [&](int64_t b, int64_t n, int64_t g, int64_t c) { return d_rows(b, g, n).column(c); });
}

}  // namespace

void count_softmax_layer(Books& books, int64_t layer) {
  const Shape& s = books.problem.shape;
  const int64_t M = books.problem.projected > 0 ? books.problem.projected : s.N;
  for (int64_t b = 0; b < s.B; ++b) {
    for (int64_t h = layer * s.H; h < (layer + 1) * s.H; ++h) {
      const int64_t g = books.key_head_of(h);
      for (int64_t i = 0; i < s.N; ++i) {
        const Weights out(Sum::kOut, b, h, i), lse(Sum::kLse, b, h, i), d_q(Sum::kDQ, b, h, i),
            d_k(Sum::kDK, b, h, i), d_v(Sum::kDV, b, h, i);
        for (int64_t j = 0; j < M; ++j) {
          if (!sees(books.problem, b, i, j)) continue;
          ++books.pairs;
          books.out(b, h, i) += {out[j], 1};
          books.lse(b, h, i) += {lse[j], 1};
          books.d_q(b, h, i) += {d_q[j], 1};
          books.d_k(b, g, j) += {d_k[j], 1};
          books.d_v(b, g, j) += {d_v[j], 1};
        }
      }
    }
  }
}

void count_projections(Books& books) {
  const Shape& s = books.problem.shape;
  count_projection(books, {Sum::kProjectK, Sum::kUnprojectK, Sum::kDProjectionK,
                           &Books::projected_k, &Outputs::d_k, &Outputs::d_projection_k,
                           &Inputs::projection_k, Operand::kProjectionK, s.D});
  count_projection(books, {Sum::kProjectV, Sum::kUnprojectV, Sum::kDProjectionV,
                           &Books::projected_v, &Outputs::d_v, &Outputs::d_projection_v,
                           &Inputs::projection_v, Operand::kProjectionV, s.E});
}

}  // namespace sp::ledger
