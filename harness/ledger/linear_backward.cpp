// Gradients of linear attention.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/ledger/blocks.hpp"
#include "harness/ledger/ledger_kernels.hpp"
#include "harness/ledger/linear_chunk.hpp"

namespace sp::ledger {

using std::int64_t;

namespace {

void add_terms(const LinearGradients& gradients, int64_t i, int64_t b, int64_t h, int64_t count) {
  if (gradients.decay_terms.defined()) {
    const Row row(gradients.decay_terms, i, b, h);
    for (int64_t c = 0; c < row.columns(); ++c) row[c] += static_cast<double>(count);
  }
}
void add_parameters(const LinearGradients& gradients, int64_t count) {
  for (const Tensor& tensor : {gradients.d_gamma, gradients.d_beta}) {
    if (!tensor.defined()) continue;
    const Row row(tensor, 0, 0, 0);
    for (int64_t c = 0; c < row.columns(); ++c) row[c] += static_cast<double>(count);
  }
}

void add_d_q(const LinearGradients& gradients, int64_t i, int64_t b, int64_t h, const Flow& flow) {
  Row(gradients.d_q, i, b, h).add(flow);
  add_terms(gradients, i, b, h, flow.count);
  add_parameters(gradients, flow.count);
}

// From the chunk's end to its begin: what flows back to every key from the queries after it. `own`
// tells what the queries of one token add to a state head.
template <class Own>
void backward(const Chunk& chunk, const LinearBlock& block, int64_t state_heads,
              const Tensor& d_after, const LinearGradients& gradients, const Tensor& d_before,
              Own&& own) {
  const int64_t per_key = state_heads / block.k.extent(2);
  chunk.for_each_state_head(state_heads, [&](int64_t b, int64_t s, int64_t) {
    Flow flow = read_state(d_after, b, s);
    for (int64_t i = chunk.tokens() - 1; i >= 0; --i) {
      flow += own(i, b, s);
      Row(gradients.d_k, i, b, s / per_key).add(flow);
      Row(gradients.d_v, i, b, s / per_key).add(flow);
      if (decays(block.terms)) add_terms(gradients, i, b, s, -flow.count);
      add_parameters(gradients, flow.count);
      chunk.step(flow, b, i);  // to the token before it
    }
    write_state(d_before, b, s, flow);
  });
}

}  // namespace

void LedgerKernels::do_linear_output_backward(const Tensor& d_sums, const Tensor& d_out,
                                              const Tensor& sums, double epsilon) {
  expect_scale(epsilon, books_.problem.epsilon);
  for (int64_t i = 0; i < d_out.extent(0); ++i) {
    for (int64_t b = 0; b < d_out.extent(1); ++b) {
      for (int64_t h = 0; h < d_out.extent(2); ++h) {
        const Place place = read(Row(d_out, i, b, h), Operand::kGradient);
        if (!books_.has(b, place.h, place.n) ||
            !Row(sums, i, b, h).holds(books_.sums(b, place.h, place.n)))
          refuse(fmt::format("sums that are not those of the {}", describe(place)));
        const Row row(d_sums, i, b, h);
        for (int64_t c = 0; c < row.columns(); ++c) row[c] = encode(place, c);
      }
    }
  }
}

void LedgerKernels::do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                                      const Tensor& d_state) {
  const Chunk chunk(books_, block);
  const int64_t H = block.q.extent(2), SH = d_state.extent(2);
  for (int64_t b = 0; b < block.q.extent(1); ++b) {
    for (int64_t s = 0; s < SH; ++s) {
      Flow flow;
      for (int64_t h = s * H / SH; h < (s + 1) * H / SH && chunk.tokens() > 0; ++h) {
        const int64_t head = chunk.gradient_head(d_sums, b, h);
        for (int64_t i = 0; i < chunk.tokens(); ++i) {
          if (block.terms.causal && chunk.begins(b, i)) break;
          Flow own = of_query(b, head, chunk.position(i));
          if (block.terms.causal) own.cross(chunk.crossing() * (i + 1));
          flow += own;
        }
      }
      write_state(d_state, b, s, flow);
    }
  }
}

void LedgerKernels::do_linear_d_q(const LinearBlock& block, const Tensor& before,
                                  const Tensor& d_sums, const LinearGradients& gradients,
                                  const Tensor& after) {
  const Chunk chunk(books_, block);
  for (int64_t b = 0; b < block.q.extent(1) && chunk.tokens() > 0; ++b)
    for (int64_t h = 0; h < block.q.extent(2); ++h) chunk.gradient_head(d_sums, b, h);
  chunk.for_each_query(before, after, [&](int64_t i, int64_t b, int64_t h, const Flow& flow) {
    add_d_q(gradients, i, b, h, flow);
  });
}

void LedgerKernels::do_linear_d_kv(const LinearBlock& block, const Tensor& d_after,
                                   const Tensor& d_sums, const LinearGradients& gradients,
                                   const Tensor& d_before) {
  const Chunk chunk(books_, block);
  const int64_t H = block.q.extent(2);
  const int64_t SH = decays(block.terms) ? H : block.k.extent(2);
  std::vector<int64_t> heads(static_cast<std::size_t>(block.q.extent(1) * H));
  for (int64_t b = 0; b < block.q.extent(1) && chunk.tokens() > 0; ++b)
    for (int64_t h = 0; h < H; ++h)
      heads[static_cast<std::size_t>(b * H + h)] = chunk.gradient_head(d_sums, b, h);
  backward(chunk, block, SH, d_after, gradients, d_before, [&](int64_t i, int64_t b, int64_t s) {
    Flow own;
    for (int64_t h = s * H / SH; h < (s + 1) * H / SH; ++h)
      own += of_query(b, heads[static_cast<std::size_t>(b * H + h)], chunk.position(i));
    return own;
  });
}

void LedgerKernels::do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                                         const LinearGradients& gradients) {
  const Chunk chunk(books_, block);
  const int64_t SH = d_after.defined() ? d_after.extent(2) : block.k.extent(2);
  backward(chunk, block, SH, d_after, gradients, {},
           [](int64_t, int64_t, int64_t) { return Flow{}; });
}

void LedgerKernels::do_linear_d_decay(const LinearBlock& block, const Tensor& decay_terms,
                                      const Tensor& after, const Tensor& d_after,
                                      const Tensor& d_log_decay) {
  const Chunk chunk(books_, block);
  const bool per_channel = decay_of(block.terms.module) == Decay::kPerChannel;
  std::vector<double> sums(static_cast<std::size_t>(decay_terms.extent(2)));
  for (int64_t b = 0; b < decay_terms.extent(1); ++b) {
    for (int64_t h = 0; h < decay_terms.extent(2); ++h) {
      // Pairs of a key in this chunk and a query after it.
      double crossing =
          d_after.defined()
              ? static_cast<double>(read_state(after, b, h).count * read_state(d_after, b, h).count)
              : 0;
      for (int64_t i = chunk.tokens() - 1; i >= 0; --i) {
        const Row terms(decay_terms, i, b, h);
        crossing += terms[0];
        for (int64_t c = 0; c < terms.columns(); ++c) {
          if (terms[c] != terms[0]) refuse("decay terms differ by channel");
        }
        for (int64_t c = 0; per_channel && c < d_log_decay.extent(3); ++c)
          Row(d_log_decay, i, b, h)[c] = crossing;
        sums[static_cast<std::size_t>(h)] += crossing;
        if (chunk.begins(b, i)) crossing = 0;
      }
    }
  }
  for (std::size_t h = 0; !per_channel && h < sums.size(); ++h)
    Row(d_log_decay, 0, 0, static_cast<int64_t>(h))[0] = sums[h];
}

void LedgerKernels::do_linear_apply_d_q(const LinearBlock& block, const Tensor& state,
                                        const Tensor& d_sums, const LinearGradients& gradients) {
  const Chunk chunk(books_, block);
  for (int64_t b = 0; b < block.q.extent(1) && chunk.tokens() > 0; ++b)
    for (int64_t h = 0; h < block.q.extent(2); ++h) chunk.gradient_head(d_sums, b, h);
  chunk.for_each_query_of(state, false, [&](int64_t i, int64_t b, int64_t h, const Flow& flow) {
    add_d_q(gradients, i, b, h, flow);
  });
}

}  // namespace sp::ledger
