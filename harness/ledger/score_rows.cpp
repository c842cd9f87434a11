// Score rows of Ring Self-Attention, and Linformer's projections.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/ledger/blocks.hpp"
#include "harness/ledger/ledger_kernels.hpp"

namespace sp::ledger {
namespace {

using std::int64_t;

// The key or value in row j: by its name, or in Linformer's problems by what a complete projected
// row holds.
Place key_side(const Books& books, const Tensor& x, Operand operand, int64_t j, int64_t b,
               int64_t g) {
  const Row row(x, j, b, g);
  if (books.problem.projected == 0) return read(row, operand);
  const Entries& projected = operand == Operand::kKey ? books.projected_k : books.projected_v;
  if (!row.holds(projected(b, g, j)))
    refuse(fmt::format("projected row {} of head {} is not the sum over all tokens", j, g));
  return {operand, b, j, g};
}

struct Extents {
  int64_t rows, batches, heads, columns;
  explicit Extents(const Tensor& s)
      : rows(s.extent(0)), batches(s.extent(1)), heads(s.extent(2)), columns(s.extent(3)) {}
};

template <class F>
void for_each_row(const Extents& extents, F&& f) {
  for (int64_t i = 0; i < extents.rows; ++i)
    for (int64_t b = 0; b < extents.batches; ++b)
      for (int64_t h = 0; h < extents.heads; ++h) f(i, b, h);
}

// Whether rows of `a` are queries, or else gradients of outputs.
bool are_queries(const Tensor& a) {
  return a.elements() > 0 &&
         Row(a, 0, 0, 0)[0] < encode({Operand::kKey, 0, 0, 0}, 0);  // names begin with the operand
}

// The key or value in a row of x, whose row of the projection is beside it.
Place read_projected(const Tensor& x, const Tensor& projection, int64_t i, int64_t b, int64_t g) {
  const Row row(x, i, b, g), matrix(projection, i, 0, 0);
  const bool key = row[0] < encode({Operand::kValue, 0, 0, 0}, 0);  // names begin with the operand
  const Place place = read(row, key ? Operand::kKey : Operand::kValue);
  for (int64_t m = 0; m < matrix.columns(); ++m) {
    const Operand operand = key ? Operand::kProjectionK : Operand::kProjectionV;
    if (matrix[m] != encode({operand, 0, place.n, m}, 0))
      refuse(fmt::format("the {} is projected by another token's row", describe(place)));
  }
  return place;
}

void expect(bool as_it_should_be, const Pair& pair, const char* what) {
  if (!as_it_should_be)
    refuse(fmt::format("query {} and key {} of head {}: {}", pair.i, pair.j, pair.h, what));
}

}  // namespace

void LedgerKernels::do_scores(const Tensor& scores, const Tensor& a, const Tensor& b_side,
                              double scale) {
  if (scores.elements() == 0) return;
  const bool forward = are_queries(a);
  const Operand query = forward ? Operand::kQuery : Operand::kGradient;
  const Operand key = forward ? Operand::kKey : Operand::kValue;
  expect_scale(scale, forward ? books_.problem.scale : 1);
  const int64_t group = a.extent(2) / b_side.extent(2);
  const Extents extents(scores);
  for (int64_t b = 0; b < extents.batches; ++b) {
    for (int64_t g = 0; g < b_side.extent(2); ++g) {
      for (int64_t j = 0; j < extents.columns; ++j) {
        const Place right = key_side(books_, b_side, key, j, b, g);
        for (int64_t h = g * group; h < (g + 1) * group; ++h) {
          for (int64_t i = 0; i < extents.rows; ++i) {
            const Place left = read(Row(a, i, b, h), query);
            const Pair pair{forward ? Stage::kScore : Stage::kDProbability, b, left.h, left.n,
                            right.n};
            expect(left.b == b && right.b == b && right.h == books_.key_head_of(left.h), pair,
                   "their heads or batches do not belong together");
            Row(scores, i, b, h)[j] = encode(pair);
          }
        }
      }
    }
  }
}

void LedgerKernels::do_scores_softmax(const Tensor& scores, const Tensor& lse,
                                      const Tokens& q_tokens, const Tokens& k_tokens,
                                      const MaskTerms* mask) {
  const std::vector<int64_t> queries = positions_of(q_tokens), keys = positions_of(k_tokens);
  const Extents extents(scores);
  for_each_row(extents, [&](int64_t i, int64_t b, int64_t h) {
    const Row row(scores, i, b, h);
    Entry sum;
    for (int64_t j = 0; j < extents.columns; ++j) {
      if (mask != nullptr && !sees(*mask, b, queries[static_cast<std::size_t>(i)],
                                   keys[static_cast<std::size_t>(j)])) {
        row[j] = 0;
        continue;
      }
      Pair pair = read_pair(row[j], Stage::kScore);
      expect(pair.b == b, pair, "a row of another batch");
      expect(mask == nullptr ? pair.j == j
                             : pair.i == queries[static_cast<std::size_t>(i)] &&
                                   pair.j == keys[static_cast<std::size_t>(j)],
             pair, "not at its place in the score rows");
      sum += {Weights(Sum::kLse, b, pair.h, pair.i)[pair.j], 1};
      pair.stage = Stage::kProbability;
      row[j] = encode(pair);
    }
    Row(lse, i, b, h)[0] = lse_of(sum);
  });
}

void LedgerKernels::do_scores_softmax_backward(const Tensor& d_probabilities,
                                               const Tensor& probabilities, double scale) {
  expect_scale(scale, books_.problem.scale);
  const Extents extents(probabilities);
  for_each_row(extents, [&](int64_t i, int64_t b, int64_t h) {
    const Row p(probabilities, i, b, h), dp(d_probabilities, i, b, h);
    for (int64_t j = 0; j < extents.columns; ++j) {
      if (p[j] == 0) {
        dp[j] = 0;
        continue;
      }
      Pair pair = read_pair(p[j], Stage::kProbability);
      Pair same = read_pair(dp[j], Stage::kDProbability);
      same.stage = pair.stage;
      expect(encode(pair) == encode(same), pair, "its gradient is of another pair");
      pair.stage = Stage::kDScore;
      dp[j] = encode(pair);
    }
  });
}

void LedgerKernels::do_scores_apply(const Tensor& out, const Tensor& s, const Tensor& x) {
  const Extents extents(s);
  const int64_t group = extents.heads / x.extent(2);
  for_each_row(extents, [&](int64_t i, int64_t b, int64_t h) {
    const Row row(s, i, b, h);
    Entry sum;
    for (int64_t j = 0; j < extents.columns; ++j) {
      if (row[j] == 0) continue;
      const bool forward = row[j] < encode(Pair{Stage::kDProbability});
      const Pair pair = read_pair(row[j], forward ? Stage::kProbability : Stage::kDScore);
      const Place key =
          key_side(books_, x, forward ? Operand::kValue : Operand::kKey, j, b, h / group);
      expect(key.n == pair.j && key.b == pair.b && key.h == books_.key_head_of(pair.h), pair,
             "meets another key or value");
      sum += {Weights(forward ? Sum::kOut : Sum::kDQ, b, pair.h, pair.i)[pair.j], 1};
    }
    Row(out, i, b, h).add(sum);
  });
}

void LedgerKernels::do_scores_apply_transposed(const Tensor& out, const Tensor& s,
                                               const Tensor& x) {
  const Extents extents(s);
  if (s.elements() == 0) return;
  const int64_t group = extents.heads / out.extent(2);
  const bool of_keys = are_queries(x);
  for_each_row(extents, [&](int64_t i, int64_t b, int64_t h) {
    const Row row(s, i, b, h);
    const Place query = read(Row(x, i, b, h), of_keys ? Operand::kQuery : Operand::kGradient);
    for (int64_t j = 0; j < extents.columns; ++j) {
      if (row[j] == 0) continue;
      const Pair pair = read_pair(row[j], of_keys ? Stage::kDScore : Stage::kProbability);
      expect(query.n == pair.i && query.b == pair.b && query.h == pair.h, pair,
             "meets another query");
      Row(out, j, b, h / group)
          .add(Entry{Weights(of_keys ? Sum::kDK : Sum::kDV, b, pair.h, pair.i)[pair.j], 1});
    }
  });
}

void LedgerKernels::do_project(const Tensor& projected, const Tensor& projection, const Tensor& x) {
  for_each_row(Extents(x), [&](int64_t i, int64_t b, int64_t g) {
    const Place place = read_projected(x, projection, i, b, g);
    const Sum sum = place.operand == Operand::kKey ? Sum::kProjectK : Sum::kProjectV;
    const Weights weights(sum, b, place.h, place.n);
    for (int64_t m = 0; m < projected.extent(0); ++m)
      Row(projected, m, b, g).add(Entry{weights[m], 1});
  });
}

void LedgerKernels::do_project_backward(const Tensor& d_x, const Tensor& d_projection,
                                        const Tensor& d_projected, const Tensor& projection,
                                        const Tensor& x) {
  for_each_row(Extents(x), [&](int64_t i, int64_t b, int64_t g) {
    const Place place = read_projected(x, projection, i, b, g);
    const bool key = place.operand == Operand::kKey;
    const Entries& complete = key ? books_.d_k : books_.d_v;
    const Weights back(key ? Sum::kUnprojectK : Sum::kUnprojectV, b, place.h, place.n);
    const Weights own(key ? Sum::kDProjectionK : Sum::kDProjectionV, b, place.h, place.n);
    for (int64_t m = 0; m < d_projected.extent(0); ++m) {
      if (!Row(d_projected, m, b, g).holds(complete(b, place.h, m)))
        refuse(fmt::format("the gradient of projected row {} is not the sum over all queries", m));
      Row(d_x, i, b, g).add(Entry{back[m], 1});
      Row(d_projection, i, 0, 0)[m] += static_cast<double>(own[m]);
    }
  });
}

}  // namespace sp::ledger
