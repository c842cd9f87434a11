// The books of a problem: what a run of the ledger is given, and what it must return, bit for bit.
//
// Computed pair by pair from the mask's definition: nothing here knows of shards, bands or blocks.
// Of a stack, layer l has the query heads [lH, (l+1)H) and the key heads [lG, (l+1)G) of the books.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "harness/ledger/entries.hpp"
#include "harness/ledger/flow.hpp"
#include "reference/problem/problem.hpp"

namespace sp::ledger {

// One of something for every (batch, head, token).
template <class T>
class Grid {
 public:
  Grid() = default;
  Grid(std::int64_t batches, std::int64_t heads, std::int64_t tokens)
      : heads_(heads), tokens_(tokens), all_(static_cast<std::size_t>(batches * heads * tokens)) {}
  T& operator()(std::int64_t b, std::int64_t h, std::int64_t n) { return all_[at(b, h, n)]; }
  const T& operator()(std::int64_t b, std::int64_t h, std::int64_t n) const {
    return all_[at(b, h, n)];
  }

 private:
  std::size_t at(std::int64_t b, std::int64_t h, std::int64_t n) const {
    return static_cast<std::size_t>((b * heads_ + h) * tokens_ + n);
  }
  std::int64_t heads_ = 0, tokens_ = 0;
  std::vector<T> all_;
};
using Entries = Grid<Entry>;
using Flows = Grid<Flow>;

struct Books {
  Problem problem;
  Inputs inputs;
  std::int64_t pairs = 0;            // visible ones, of all layers, heads and batches
  Entries out, lse, d_q;             // softmax layers, of queries
  Entries d_k, d_v;                  // of keys; of projected ones in Linformer's problems
  Entries projected_k, projected_v;  // Linformer
  Flows sums, d_kv;                  // linear layers, of queries and of keys
  Outputs outputs;

  // Based with a window adds softmax attention over it to its linear one.
  bool adds_window() const { return problem.module && problem.mask.window > 0; }
  double softmax_scale() const {
    return adds_window() ? default_scale(problem.shape) : problem.scale;
  }
  bool is_softmax(std::int64_t layer) const {
    return problem.layers.empty() ? !problem.module
                                  : problem.layers[static_cast<std::size_t>(layer)] == 'N';
  }
  std::int64_t key_head_of(std::int64_t query_head) const {
    const Shape& s = problem.shape;
    return query_head / s.H * s.G + query_head % s.H * s.G / s.H;
  }
  bool has(std::int64_t b, std::int64_t head, std::int64_t n) const {  // such a query
    const Shape& s = problem.shape;
    return b >= 0 && b < s.B && head >= 0 && head < problem.layer_count() * s.H && n >= 0 &&
           n < s.N;
  }
  // Whether a row is the complete out (of a window: its part), or the complete d_q, of query n. Data
  // say which query: one that there is not has no rows.
  bool is_out(const Row& row, std::int64_t b, std::int64_t head, std::int64_t n) const;
  bool is_d_q(const Row& row, std::int64_t b, std::int64_t head, std::int64_t n) const;
};

// The problem's type becomes f64. Throws Error(kUsage) for one that the ledger cannot hold.
Books open_books(const Problem& problem);

// What is wrong with a run's outputs: the first row that is not as the books say, and the pair that
// explains it. Empty: nothing.
std::string audit(const Books& books, const Outputs& outputs);

// " (9 of 10 pairs); the pair of query 5 and key 3, head 0, is missing", of a row of softmax
// attention whose sums are of this family: `first` and `second` are its first two columns.
std::string explain(const Books& books, Sum sum, std::int64_t b, std::int64_t n, std::int64_t head,
                    double first, double second);

// ---- Parts of open_books ----------------------------------------------------------------------

void count_softmax_layer(Books& books, std::int64_t layer);
void count_linear_layer(Books& books, std::int64_t layer);  // and what its decays and maps return
void count_projections(Books& books);
// What operands hold: names, in every row.
HostTensor operands(Operand operand, std::int64_t B, std::int64_t N, std::int64_t heads,
                    std::int64_t columns);
// f(b, n, h, c) as a tensor [B, N, heads, columns].
template <class F>
HostTensor tabulate(std::int64_t B, std::int64_t N, std::int64_t heads, std::int64_t columns,
                    F&& f) {
  HostTensor tensor(DType::kF64, {B, N, heads, columns});
  double* element = tensor.as<double>().data();
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t n = 0; n < N; ++n)
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t c = 0; c < columns; ++c) *element++ = f(b, n, h, c);
  return tensor;
}

}  // namespace sp::ledger
