// SPDX-License-Identifier: Apache-2.0
#include "harness/ledger/books.hpp"

#include <fmt/format.h>

#include "reference/problem/error.hpp"

namespace sp::ledger {

using std::int64_t;

namespace {

void check_size(const Problem& problem) {
  const Shape& s = problem.shape;
  const int64_t heads = s.H * problem.layer_count();
  if (s.B > kMostBatches || s.N > kMostTokens || heads > kMostHeads || s.D > kMostColumns ||
      s.E + 1 > kMostColumns || problem.projected > kMostHeads) {
    throw Error(ErrorKind::kUsage,
                fmt::format("too large for the ledger; allowed: {} batches, {} tokens, {} heads of "
                            "size {}, {} projected rows",
                            kMostBatches, kMostTokens, kMostHeads, kMostColumns - 1, kMostHeads));
  }
  if (problem.module && (s.D < kFlowColumns || s.E < kFlowColumns))
    throw Error(
        ErrorKind::kUsage,
        fmt::format("the ledger of linear attention needs head sizes of {} or more", kFlowColumns));
}

// As kernels get them: [1, 1, H, 1] without its ones, or [B, N, H, D].
HostTensor decays_of(const Problem& problem) {
  const Shape& s = problem.shape;
  if (decay_of(*problem.module) == Decay::kPerChannel)
    return operands(Operand::kLogDecay, s.B, s.N, s.H, s.D);
  HostTensor decays(DType::kF64, {s.H});
  for (int64_t h = 0; h < s.H; ++h) decays.set(h, encode({Operand::kLogDecay, 0, 0, h}, 0));
  return decays;
}

HostTensor parameters(Operand operand, int64_t D) {
  HostTensor row(DType::kF64, {D});
  for (int64_t c = 0; c < D; ++c) row.set(c, encode({operand, 0, 0, 0}, c));
  return row;
}

Inputs inputs_of(const Problem& problem) {
  const Shape& s = problem.shape;
  const int64_t L = problem.layer_count();
  Inputs inputs;
  inputs.q = operands(Operand::kQuery, s.B, s.N, s.H, s.D);
  inputs.k = operands(Operand::kKey, s.B, s.N, L * s.G, s.D);
  inputs.v = operands(Operand::kValue, s.B, s.N, L * s.G, s.E);
  // The last layer's: its heads are the last of the books.
  inputs.d_out = tabulate(s.B, s.N, s.H, s.E, [&](int64_t b, int64_t n, int64_t h, int64_t c) {
    return encode({Operand::kGradient, b, n, (L - 1) * s.H + h}, c);
  });
  if (problem.module && decay_of(*problem.module) != Decay::kNone)
    inputs.log_decay = decays_of(problem);
  if (problem.module == Module::kRebased) {
    inputs.gamma = parameters(Operand::kGamma, s.D);
    inputs.beta = parameters(Operand::kBeta, s.D);
  }
  return inputs;
}

void write_outputs(Books& books) {
  const Problem& problem = books.problem;
  const Shape& s = problem.shape;
  const int64_t L = problem.layer_count();
  Outputs& outputs = books.outputs;
  // What a layer holds: sums of pairs, flows, or under a window both.
  const auto column = [&](int64_t layer, const Entries& entries, const Flows& flows, int64_t b,
                          int64_t head, int64_t n, int64_t c) {
    if (books.is_softmax(layer)) return entries(b, head, n).column(c);
    return flows(b, head, n).column(c) + (books.adds_window() ? entries(b, head, n).column(c) : 0);
  };
  outputs.out = tabulate(s.B, s.N, s.H, s.E, [&](int64_t b, int64_t n, int64_t h, int64_t c) {
    return column(L - 1, books.out, books.sums, b, (L - 1) * s.H + h, n, c);
  });
  outputs.d_q = tabulate(s.B, s.N, s.H, s.D, [&](int64_t b, int64_t n, int64_t h, int64_t c) {
    return column(0, books.d_q, books.sums, b, h, n, c);
  });
  const auto of_keys = [&](const Entries& entries, int64_t columns) {
    return tabulate(s.B, s.N, L * s.G, columns, [&](int64_t b, int64_t n, int64_t g, int64_t c) {
      return column(g / s.G, entries, books.d_kv, b, g, n, c);
    });
  };
  if (problem.projected == 0) {
    outputs.d_k = of_keys(books.d_k, s.D);
    outputs.d_v = of_keys(books.d_v, s.E);
  }
  if (problem.module) return;
  outputs.lse = HostTensor(DType::kF64, {s.B, s.H, s.N});
  for (int64_t at = 0; at < outputs.lse.size(); ++at)
    outputs.lse.set(at, lse_of(books.lse(at / s.N / s.H, at / s.N % s.H, at % s.N)));
}

}  // namespace

HostTensor operands(Operand operand, int64_t B, int64_t N, int64_t heads, int64_t columns) {
  return tabulate(B, N, heads, columns, [&](int64_t b, int64_t n, int64_t h, int64_t c) {
    return encode({operand, b, n, h}, c);
  });
}

bool Books::is_out(const Row& row, int64_t b, int64_t head, int64_t n) const {
  if (!has(b, head, n)) return false;
  return is_softmax(head / problem.shape.H) || adds_window() ? row.holds(out(b, head, n))
                                                             : row.holds(sums(b, head, n));
}

bool Books::is_d_q(const Row& row, int64_t b, int64_t head, int64_t n) const {
  if (!has(b, head, n)) return false;
  return is_softmax(head / problem.shape.H) ? row.holds(d_q(b, head, n))
                                            : row.holds(sums(b, head, n));
}

Books open_books(const Problem& problem) {
  validate(problem);
  check_size(problem);
  Books books;
  books.problem = problem;
  books.problem.dtype = DType::kF64;
  books.inputs = inputs_of(problem);
  const Shape& s = problem.shape;
  const int64_t L = problem.layer_count();
  const int64_t keys = problem.projected > 0 ? problem.projected : s.N;
  books.out = books.lse = books.d_q = Entries(s.B, L * s.H, s.N);
  books.d_k = books.d_v = Entries(s.B, L * s.G, keys);
  books.sums = Flows(s.B, L * s.H, s.N);
  books.d_kv = Flows(s.B, L * s.G, s.N);
  if (problem.module && decay_of(*problem.module) == Decay::kPerHead)
    books.outputs.d_log_decay = HostTensor(DType::kF64, {s.H});
  for (int64_t layer = 0; layer < L; ++layer) {
    if (books.is_softmax(layer) || books.adds_window()) count_softmax_layer(books, layer);
    if (!books.is_softmax(layer)) count_linear_layer(books, layer);
  }
  if (problem.projected > 0) count_projections(books);
  write_outputs(books);
  return books;
}

}  // namespace sp::ledger
