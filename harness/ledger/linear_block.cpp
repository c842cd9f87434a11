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

// Calls f(row, b, h, its number, query, column, g, key head, key, borders) for every pair that sees.
template <class F>
void for_each_pair(const Books& books, const AttentionBlock& block, const LinearTerms& terms,
                   F&& f) {
  check_terms(books, terms);
  expect_scale(block.scale, books.problem.scale);
  if (block.q.extent(0) == 0 || block.k.extent(0) == 0) return;
  const std::vector<int64_t> queries = positions_of(block.q_tokens);
  const std::vector<int64_t> keys = positions_of(block.k_tokens);
  const int64_t group = block.q.extent(2) / block.k.extent(2);
  for (int64_t b = 0; b < block.q.extent(1); ++b) {
    // Number of the document of every token: ids may come back, documents do not.
    std::vector<int64_t> run(static_cast<std::size_t>(books.problem.shape.N));
    for (int64_t n = 1; n < books.problem.shape.N; ++n) {
      const auto at = static_cast<std::size_t>(n);
      run[at] = run[at - 1] + (begins(terms, b, n) ? 1 : 0);
    }
    for (int64_t h = 0; h < block.q.extent(2); ++h) {
      const int64_t head = head_of(books, block.q, Operand::kQuery, queries, b, h);
      const int64_t key_head = head_of(books, block.k, Operand::kKey, keys, b, h / group);
      const int64_t value_head = head_of(books, block.v, Operand::kValue, keys, b, h / group);
      if (books.key_head_of(head) != key_head || key_head != value_head)
        refuse(fmt::format("query head {} meets key head {} and value head {}", head, key_head,
                           value_head));
      check_decays(books, terms, queries, b, h, head);
      for (std::size_t i = 0; i < queries.size(); ++i) {
        for (std::size_t j = 0; j < keys.size(); ++j) {
          const int64_t query = queries[i], key = keys[j];
          if (!block.mask.band.sees(query, key) ||
              run[static_cast<std::size_t>(query)] != run[static_cast<std::size_t>(key)])
            continue;
          f(static_cast<int64_t>(i), b, h, head, query, static_cast<int64_t>(j), key_head, key,
            decays(terms) ? std::llabs(query - key) : 0);
        }
      }
    }
  }
}

}  // namespace

void LedgerKernels::do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                                    const Tensor& sums) {
  for_each_pair(books_, block, terms,
                [&](int64_t i, int64_t b, int64_t h, int64_t, int64_t, int64_t, int64_t key_head,
                    int64_t key, int64_t borders) {
                  Flow flow = of_key(b, key_head, key);
                  flow.cross(borders);
                  Row(sums, i, b, h).add(flow);
                });
}

void LedgerKernels::do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                             const Tensor& d_out,
                                             const AttentionGradients& gradients,
                                             const Tensor& d_log_decay) {
  const int64_t group = block.q.extent(2) / block.k.extent(2);
  for_each_pair(books_, block, terms,
                [&](int64_t i, int64_t b, int64_t h, int64_t head, int64_t query, int64_t j,
                    int64_t key_head, int64_t key, int64_t borders) {
                  const Place place = read(Row(d_out, i, b, h), Operand::kGradient);
                  if (place != Place{Operand::kGradient, b, query, head})
                    refuse(fmt::format("query {} of head {} meets another gradient", query, head));
                  Flow to_query = of_key(b, key_head, key), to_key = of_query(b, head, query);
                  to_query.cross(borders);
                  to_key.cross(borders);
                  Row(gradients.d_q, i, b, h).add(to_query);
                  Row(gradients.d_k, j, b, h / group).add(to_key);
                  Row(gradients.d_v, j, b, h / group).add(to_key);
                  if (d_log_decay.defined())
                    Row(d_log_decay, 0, 0, h)[0] += static_cast<double>(borders);
                });
}

}  // namespace sp::ledger
