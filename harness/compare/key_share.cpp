// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/key_share.hpp"

#include <cmath>

#include "harness/compare/in_parallel.hpp"
#include "reference/problem/error.hpp"
#include "reference/vectors.hpp"

namespace sp {

KeyShare share_of_first_keys(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                             std::span<const std::int64_t> tokens, std::int64_t keys) {
  using reference::doubles;
  const Shape& s = problem.shape;
  SP_CHECK(problem.mask.window == 0 && problem.mask.segment_ids.empty() && problem.projected == 0,
           "shares of keys know no windows, documents and projections");
  const bool backward = !inputs.d_out.absent();
  const std::int64_t rows = std::ssize(tokens), group = s.H / s.G;
  const auto q = doubles(inputs.q, inputs.q.shape()), k = doubles(inputs.k, inputs.k.shape()),
             v = doubles(inputs.v, inputs.v.shape()),
             d_out = doubles(inputs.d_out, inputs.d_out.shape());
  KeyShare share;
  share.out.resize(static_cast<std::size_t>(s.B * rows * s.H * s.E));
  share.weight.resize(static_cast<std::size_t>(s.B * s.H * rows));
  if (backward) share.d_q.resize(static_cast<std::size_t>(s.B * rows * s.H * s.D));
  in_parallel(s.B * rows, rows * keys > 10'000, [&](std::int64_t task) {
    const std::int64_t b = task / rows, row = task % rows;
    const std::int64_t n = tokens[static_cast<std::size_t>(row)];
    const std::int64_t visible = problem.mask.causal ? std::min(keys, n + 1) : keys;
    for (std::int64_t h = 0; h < s.H; ++h) {
      const std::int64_t result = (b * rows + row) * s.H + h, query = (b * s.N + n) * s.H + h;
      const std::int64_t log = (b * s.H + h) * rows + row;
      double delta = 0;
      for (std::int64_t e = 0; e < s.E && backward; ++e)
        delta += d_out[static_cast<std::size_t>(query * s.E + e)] * exact.out.at(result * s.E + e);
      for (std::int64_t j = 0; j < visible; ++j) {
        const std::int64_t key = (b * s.N + j) * s.G + h / group;
        const double *query_row = q.data() + query * s.D, *key_row = k.data() + key * s.D;
        const double* value = v.data() + key * s.E;
        const double score = problem.scale * reference::dot(query_row, key_row, s.D);
        const double p = std::exp(score - exact.lse.at(log));
        share.weight[static_cast<std::size_t>(log)] += p;
        reference::add_scaled(share.out.data() + result * s.E, p, value, s.E);
        if (!backward) continue;
        const double d_p = reference::dot(d_out.data() + query * s.E, value, s.E);
        reference::add_scaled(share.d_q.data() + result * s.D, problem.scale * p * (d_p - delta),
                              key_row, s.D);
      }
    }
  });
  return share;
}

}  // namespace sp
