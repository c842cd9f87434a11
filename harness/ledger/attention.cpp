// Blocks of softmax attention.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>

#include "harness/ledger/blocks.hpp"
#include "harness/ledger/ledger_kernels.hpp"

namespace sp::ledger {
namespace {

using std::int64_t;

// Whose rows of d_out and out these are. In stacks nothing but both of them tells which token's.
Place gradient_of(const Books& books, const Row& d_out, const Row& out, int64_t b, int64_t h) {
  const int64_t H = books.problem.shape.H;
  for (int64_t layer = 0; layer + 1 < books.problem.layer_count(); ++layer) {
    for (int64_t n = 0; n < books.problem.shape.N; ++n) {
      if (books.is_d_q(d_out, b, (layer + 1) * H + h, n) && books.is_out(out, b, layer * H + h, n))
        return {Operand::kGradient, b, n, layer * H + h};
    }
  }
  const Place place = read(d_out, Operand::kGradient);
  if (place.b != b || !books.is_out(out, b, place.h, place.n))
    refuse(fmt::format("delta of an out that is not that of the {}{}", describe(place),
                       place.b == b && out.columns() > 1 && books.is_softmax(place.h / H)
                           ? explain(books, Sum::kOut, b, place.n, place.h, out[0], out[1])
                           : ""));
  return place;
}

}  // namespace

void LedgerKernels::do_attention(const AttentionBlock& block, const Partial& result) {
  expect_scale(block.scale, books_.softmax_scale());
  do_fill(result.out, 0);
  do_fill(result.lse, lse_of({}));
  for_each_head(books_, block,
                [&](int64_t b, int64_t h, int64_t head, int64_t,
                    const std::vector<int64_t>& queries, const std::vector<int64_t>& keys) {
                  for (std::size_t i = 0; i < queries.size(); ++i) {
                    const Weights out(Sum::kOut, b, head, queries[i]);
                    const Weights lse(Sum::kLse, b, head, queries[i]);
                    Entry out_sum, lse_sum;
                    for (const int64_t j : keys) {
                      if (!sees(block.mask, b, queries[i], j)) continue;
                      out_sum += {out[j], 1};
                      lse_sum += {lse[j], 1};
                    }
                    Row(result.out, static_cast<int64_t>(i), b, h).write(out_sum);
                    Row(result.lse, static_cast<int64_t>(i), b, h)[0] = lse_of(lse_sum);
                  }
                });
}

void LedgerKernels::do_merge(const Partial& into, const Partial& from) {
  for (int64_t i = 0; i < into.out.extent(0); ++i) {
    for (int64_t b = 0; b < into.out.extent(1); ++b) {
      for (int64_t h = 0; h < into.out.extent(2); ++h) {
        double& lse = Row(into.lse, i, b, h)[0];
        const double more = Row(from.lse, i, b, h)[0];
        if (std::isinf(more)) continue;  // rows that saw nothing
        const Row sums(into.out, i, b, h), added(from.out, i, b, h);
        const bool first = std::isinf(lse);
        for (int64_t e = 0; e < sums.columns(); ++e) sums[e] = (first ? 0 : sums[e]) + added[e];
        lse = (first ? 0 : lse) + more;
      }
    }
  }
}

void LedgerKernels::do_attention_delta(const Tensor& delta, const Tensor& d_out,
                                       const Tensor& out) {
  for (int64_t i = 0; i < out.extent(0); ++i) {
    for (int64_t b = 0; b < out.extent(1); ++b) {
      for (int64_t h = 0; h < out.extent(2); ++h) {
        Place place = gradient_of(books_, Row(d_out, i, b, h), Row(out, i, b, h), b, h);
        place.operand = Operand::kDelta;
        Row(delta, i, b, h)[0] = encode(place, 0);
      }
    }
  }
}

void LedgerKernels::do_attention_backward(const AttentionBlock& block, const Tensor& d_out,
                                          const Tensor& lse, const Tensor& delta,
                                          const AttentionGradients& gradients) {
  const auto head_rows = [&](int64_t b, int64_t h, int64_t head, int64_t g,
                             const std::vector<int64_t>& queries,
                             const std::vector<int64_t>& keys) {
    std::vector<Entry> d_k(keys.size()), d_v(keys.size());
    for (std::size_t row = 0; row < queries.size(); ++row) {
      const auto i = static_cast<int64_t>(row);
      const int64_t query = queries[row];
      const Place expected{Operand::kGradient, b, query, head};
      const Place given = read_operand(books_, d_out, Operand::kGradient, i, b, h, query);
      if (given != expected)
        refuse(
            fmt::format("the {} stands where the {} belongs", describe(given), describe(expected)));
      if (Row(lse, i, b, h)[0] != lse_of(books_.lse(b, head, query)))
        refuse(
            fmt::format("backward with a log-sum-exp of query {}, head {} that is not that over "
                        "all its keys",
                        query, head));
      if (Row(delta, i, b, h)[0] != encode({Operand::kDelta, b, query, head}, 0))
        refuse(fmt::format("backward with the delta of another row than query {}, head {}", query,
                           head));
      const Weights w_q(Sum::kDQ, b, head, query), w_k(Sum::kDK, b, head, query),
          w_v(Sum::kDV, b, head, query);
      Entry d_q;
      for (std::size_t j = 0; j < keys.size(); ++j) {
        if (!sees(block.mask, b, query, keys[j])) continue;
        d_q += {w_q[keys[j]], 1};
        d_k[j] += {w_k[keys[j]], 1};
        d_v[j] += {w_v[keys[j]], 1};
      }
      Row(gradients.d_q, i, b, h).add(d_q);
    }
    for (std::size_t j = 0; j < keys.size(); ++j) {
      Row(gradients.d_k, static_cast<int64_t>(j), b, g).add(d_k[j]);
      Row(gradients.d_v, static_cast<int64_t>(j), b, g).add(d_v[j]);
    }
  };
  expect_scale(block.scale, books_.softmax_scale());
  for_each_head(books_, block, head_rows);
}

}  // namespace sp::ledger
