// States and outputs of linear attention.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/ledger/blocks.hpp"
#include "harness/ledger/ledger_kernels.hpp"
#include "harness/ledger/linear_chunk.hpp"

namespace sp::ledger {

using std::int64_t;

void LedgerKernels::do_linear_state(const LinearBlock& block, const Tensor& state) {
  const Chunk chunk(books_, block);
  const int64_t W = block.v.extent(3) + (is_normalised(block.terms.module) ? 1 : 0);
  const Tensor own = state.slice(3, 0, W);
  chunk.for_each_state_head(state.extent(2), [&](int64_t b, int64_t s, int64_t key) {
    Flow flow;
    for (int64_t i = 0; i < chunk.tokens(); ++i) {
      if (block.terms.causal) chunk.step(flow, b, i);
      flow += of_key(b, key, chunk.position(i));
    }
    write_state(own, b, s, flow);
    // One column more for decays per channel: their sum, which is a number of borders here.
    for (int64_t f = 0; state.extent(3) > W && f < state.extent(0); ++f)
      Row(state, f, b, s)[W] = static_cast<double>(chunk.tokens());
  });
}

void LedgerKernels::do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                                         const LinearTerms& terms) {
  for (const StateSpan& span : spans) {
    for (int64_t b = 0; b < into.extent(1); ++b) {
      bool forgotten = false;
      for (int64_t i = 0; i < span.tokens.count; ++i)
        forgotten = forgotten || begins(terms, b, span.tokens.position(i));
      for (int64_t s = 0; s < into.extent(2); ++s) {
        for (int64_t f = 0; f < into.extent(0); ++f) {
          const Row row(into, f, b, s), more(span.state, f, b, s);
          const auto tokens = static_cast<double>(span.tokens.count);
          if (span.log_decay.defined() && Row(span.log_decay, f, b, s)[0] != tokens)
            refuse("a state arrives with the decay of another chunk");
          if (decays(terms)) row[2] += tokens * row[1];
          for (int64_t w = 0; w < row.columns(); ++w) row[w] = (forgotten ? 0 : row[w]) + more[w];
        }
      }
    }
  }
}

void LedgerKernels::do_linear_forward(const LinearBlock& block, const Tensor& before,
                                      const Tensor& sums, const Tensor& after) {
  const Chunk chunk(books_, block);
  chunk.for_each_query(before, after, [&](int64_t i, int64_t b, int64_t h, const Flow& flow) {
    Row(sums, i, b, h).write(flow);
  });
}

void LedgerKernels::do_linear_inter(const LinearBlock& block, const Tensor& before,
                                    const Tensor& sums) {
  Chunk(books_, block)
      .for_each_query_of(before, true, [&](int64_t i, int64_t b, int64_t h, const Flow& flow) {
        Row(sums, i, b, h).add(flow);
      });
}

void LedgerKernels::do_linear_output(const Tensor& out, const Tensor& sums, double epsilon) {
  expect_scale(epsilon, books_.problem.epsilon);
  for (int64_t i = 0; i < out.extent(0); ++i) {
    for (int64_t b = 0; b < out.extent(1); ++b) {
      for (int64_t h = 0; h < out.extent(2); ++h) {
        const Row target(out, i, b, h), row(sums, i, b, h);
        const int64_t E = target.columns();
        if (row.columns() > E && row[E] != row[0] + static_cast<double>(E) * row[1])
          refuse("a normaliser that is not of the same keys as its row");
        for (int64_t e = 0; e < E; ++e) target[e] = row[e];
      }
    }
  }
}

void LedgerKernels::do_linear_apply(const LinearBlock& block, const Tensor& state,
                                    const Tensor& sums) {
  Chunk(books_, block)
      .for_each_query_of(state, false, [&](int64_t i, int64_t b, int64_t h, const Flow& flow) {
        Row(sums, i, b, h).add(flow);
      });
}

}  // namespace sp::ledger
