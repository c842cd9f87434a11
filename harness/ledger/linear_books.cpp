// The books of linear attention, pair by pair.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>

#include "harness/ledger/books.hpp"

namespace sp::ledger {
namespace {

using std::int64_t;

// The number of every token's document: a run of equal ids. At its border everything begins anew.
std::vector<int64_t> documents_of(const Problem& problem, int64_t b) {
  const int64_t N = problem.shape.N;
  const auto& ids = problem.mask.segment_ids;
  std::vector<int64_t> documents(static_cast<std::size_t>(N));
  for (int64_t n = 1; n < N && !ids.empty(); ++n) {
    const auto at = static_cast<std::size_t>(n), id = static_cast<std::size_t>(b * N + n);
    documents[at] = documents[at - 1] + (ids[id] != ids[id - 1] ? 1 : 0);
  }
  return documents;
}

// crossing(b, h, n): pairs of a query and a key with the border before token n between them.
void count_decays(Books& books, const Grid<int64_t>& crossing) {
  const Shape& s = books.problem.shape;
  HostTensor& d_log_decay = books.outputs.d_log_decay;
  if (decay_of(*books.problem.module) == Decay::kPerChannel) {
    d_log_decay = tabulate(s.B, s.N, s.H, s.D, [&](int64_t b, int64_t n, int64_t h, int64_t) {
      return static_cast<double>(crossing(b, h, n));
    });
    return;
  }
  for (int64_t h = 0; h < s.H; ++h) {
    int64_t sum = 0;
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t n = 0; n < s.N; ++n) sum += crossing(b, h, n);
    d_log_decay.set(h, d_log_decay.at(h) + static_cast<double>(sum));  // of all layers
  }
}

}  // namespace

void count_linear_layer(Books& books, int64_t layer) {
  const Problem& problem = books.problem;
  const Shape& s = problem.shape;
  const bool decays = decay_of(*problem.module) != Decay::kNone;
  const int64_t pairs_before = books.pairs;
  Grid<int64_t> crossing(s.B, s.H, s.N);
  for (int64_t b = 0; b < s.B; ++b) {
    const std::vector<int64_t> document = documents_of(problem, b);
    for (int64_t h = layer * s.H; h < (layer + 1) * s.H; ++h) {
      const int64_t g = books.key_head_of(h);
      const Weights keys(Sum::kState, b, g, 0), queries(Sum::kDState, b, h, 0);
      for (int64_t i = 0; i < s.N; ++i) {
        for (int64_t j = 0; j < (problem.mask.causal ? i + 1 : s.N); ++j) {
          if (document[static_cast<std::size_t>(i)] != document[static_cast<std::size_t>(j)])
            continue;
          ++books.pairs;
          const int64_t borders = decays ? std::llabs(i - j) : 0;
          books.sums(b, h, i) += {keys[j], 1, borders};
          books.d_kv(b, g, j) += {queries[i], 1, borders};
          for (int64_t n = 1; n <= borders; ++n) ++crossing(b, h - layer * s.H, std::min(i, j) + n);
        }
      }
    }
  }
  if (decays) count_decays(books, crossing);
  if (problem.module != Module::kRebased) return;
  // Once for the query and once for the key of every pair.
  const auto both = static_cast<double>(2 * (books.pairs - pairs_before));
  books.outputs.d_gamma = books.outputs.d_beta = HostTensor(DType::kF64, {s.D});
  for (int64_t c = 0; c < s.D; ++c) {
    books.outputs.d_gamma.set(c, both);
    books.outputs.d_beta.set(c, both);
  }
}

}  // namespace sp::ledger
