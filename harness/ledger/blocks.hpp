// Rows of operands, read and found to be where a kernel was told.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "harness/ledger/books.hpp"
#include "harness/run/sees.hpp"
#include "optimized/kernels/kernels.hpp"

namespace sp::ledger {

std::vector<std::int64_t> positions_of(const Tokens& tokens);

// Row (i, b, h) of an operand. In stacks the queries of a layer are the outputs of the one before it,
// and gradients of outputs the d_q of the one after it: complete rows of token n and local head h.
Place read_operand(const Books& books, const Tensor& tensor, Operand operand, std::int64_t i,
                   std::int64_t b, std::int64_t h, std::int64_t n);

// The head of the books that the rows (b, h) of a tensor are. Throws Error(kInternal) if they are
// not all of batch b and one head, or not at `positions`.
std::int64_t head_of(const Books& books, const Tensor& tensor, Operand operand,
                     const std::vector<std::int64_t>& positions, std::int64_t b, std::int64_t h);

// Refuses heads that do not belong together.
void expect_heads(const Books& books, std::int64_t head, std::int64_t key_head,
                  std::int64_t value_head);

// Calls f(b, local query head, its number in the books, local key head, positions of the queries, of
// the keys) for all heads of a block whose operands are what they should be.
template <class F>
void for_each_head(const Books& books, const AttentionBlock& block, F&& f) {
  if (block.q.extent(0) == 0 || block.k.extent(0) == 0) return;
  const std::vector<std::int64_t> queries = positions_of(block.q_tokens);
  const std::vector<std::int64_t> keys = positions_of(block.k_tokens);
  const std::int64_t group = block.q.extent(2) / block.k.extent(2);
  for (std::int64_t b = 0; b < block.q.extent(1); ++b) {
    for (std::int64_t g = 0; g < block.k.extent(2); ++g) {
      const std::int64_t key_head = head_of(books, block.k, Operand::kKey, keys, b, g);
      const std::int64_t value_head = head_of(books, block.v, Operand::kValue, keys, b, g);
      for (std::int64_t h = g * group; h < (g + 1) * group; ++h) {
        const std::int64_t head = head_of(books, block.q, Operand::kQuery, queries, b, h);
        expect_heads(books, head, key_head, value_head);
        f(b, h, head, g, queries, keys);
      }
    }
  }
}

void expect_scale(double scale, double expected);

}  // namespace sp::ledger
