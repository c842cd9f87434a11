// The left product of linear attention: blocks of pairs, whoever owned them.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdlib>

#include "harness/ledger/blocks.hpp"
#include "harness/ledger/ledger_kernels.hpp"
#include "harness/ledger/linear_chunk.hpp"

namespace sp::ledger {

using std::int64_t;

namespace {

// A pair that sees each other: rows of a block, and who they are in the books.
struct Seen {
  int64_t i, j, b, h, g;  // local
  int64_t query, head, key, key_head;
  int64_t borders;  // between them, where there is a decay
};

// Calls f(Seen) for every pair of a block.
template <class F>
void for_each_pair(const Books& books, const AttentionBlock& block, const LinearTerms& terms,
                   F&& f) {
  check_terms(books, terms);
  expect_scale(block.scale, books.problem.scale);
  // Number of the document of every token: ids may come back, documents do not.
  Grid<int64_t> document(books.problem.shape.B, 1, books.problem.shape.N);
  for (int64_t b = 0; b < books.problem.shape.B; ++b)
    for (int64_t n = 1; n < books.problem.shape.N; ++n)
      document(b, 0, n) = document(b, 0, n - 1) + (begins(terms, b, n) ? 1 : 0);
  const auto head_rows = [&](int64_t b, int64_t h, int64_t head, int64_t g,
                             const std::vector<int64_t>& queries,
                             const std::vector<int64_t>& keys) {
    check_decays(books, terms, queries, b, h, head);
    for (std::size_t i = 0; i < queries.size(); ++i) {
      for (std::size_t j = 0; j < keys.size(); ++j) {
        const int64_t query = queries[i], key = keys[j];
        if (!block.mask.band.sees(query, key) || document(b, 0, query) != document(b, 0, key))
          continue;
        f(Seen{static_cast<int64_t>(i), static_cast<int64_t>(j), b, h, g, query, head, key,
               books.key_head_of(head), decays(terms) ? std::llabs(query - key) : 0});
      }
    }
  };
  for_each_head(books, block, head_rows);
}

}  // namespace

void LedgerKernels::do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                                    const Tensor& sums) {
  for_each_pair(books_, block, terms, [&](const Seen& pair) {
    Flow flow = of_key(pair.b, pair.key_head, pair.key);
    flow.cross(pair.borders);
    Row(sums, pair.i, pair.b, pair.h).add(flow);
  });
}

void LedgerKernels::do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                             const Tensor& d_out,
                                             const AttentionGradients& gradients,
                                             const Tensor& d_log_decay) {
  for_each_pair(books_, block, terms, [&](const Seen& pair) {
    const auto& [i, j, b, h, g, query, head, key, key_head, borders] = pair;
    if (read(Row(d_out, i, b, h), Operand::kGradient) != Place{Operand::kGradient, b, query, head})
      refuse(fmt::format("query {} of head {} meets another gradient", query, head));
    Flow to_query = of_key(b, key_head, key), to_key = of_query(b, head, query);
    to_query.cross(borders);
    to_key.cross(borders);
    Row(gradients.d_q, i, b, h).add(to_query);
    Row(gradients.d_k, j, b, g).add(to_key);
    Row(gradients.d_v, j, b, g).add(to_key);
    if (d_log_decay.defined()) Row(d_log_decay, 0, 0, h)[0] += static_cast<double>(borders);
  });
}

}  // namespace sp::ledger
