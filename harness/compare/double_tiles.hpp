// The loops that take the time of the truth about softmax attention: products of tiles, and what is done to every pair of
// a query and a key. In double, compiled once per instruction set; no code is shared with the kernels that are judged.
//
// Counts of columns and keys are multiples of kLanes; hidden and missing pairs have the score -inf.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace sp::double_tiles {

inline constexpr std::int64_t kLanes = 8;  // doubles of the widest vector

// c[rows, columns] += a[rows, depth] b[depth, columns]; a has any strides.
struct Product {
  double* c;
  std::int64_t c_stride;
  const double* a;
  std::int64_t a_row_stride, a_column_stride;
  const double* b;
  std::int64_t b_stride;
  std::int64_t rows, columns, depth;
};
void multiply_add(const Product& product);

double largest(const double* x, std::int64_t count);                   // -inf of none
double sum_of_exp(const double* x, double shift, std::int64_t count);  // of exp(x - shift)
// After a step of a sum: the range of all sums so far, and what the roundings of this one add, rounding2 sum^2.
void add_step(double* low, double* high, double* variance, const double* sum, double rounding2,
              std::int64_t count);

// What limits.hpp calls by these letters, of one query ...
struct QueryTerms {
  double lse = 0, delta = 0;
  double w = 0;  // unit roundoff of the accumulator
  double scale = 1;
  double score_walk = 1;  // roundings of a score of its own size
  double steps = 0;       // additions of the tile into one sum
  double q_norm = 0, d_out_norm = 0;
  double lse_error = 0, delta_error = 0;  // common to its keys; 0 where they are added elsewhere
  double operand = 0;                     // u, where p and d_score are rounded to storage
  double smallest = 0;                    // p and d_score below it are rounded as if they were it
};
// ... and of a tile of keys, one element per key.
struct KeyTerms {
  const double *k_norm, *v_norm;
  const double *k_error, *v_error;  // of an element of theirs
};

// p = exp(score - lse) and the variance of its error.
struct ForwardSums {
  double p_variance = 0, of_values = 0;  // of all keys: of p, and of p v by the errors of v
};
ForwardSums forward_pairs(const QueryTerms& query, const KeyTerms& keys, const double* scores,
                          double* p, double* p_variance, std::int64_t count);
// The same, with d_score = scale p (d_p - delta) and its variance. p_variance and d_score_variance count the query's own
// lse_error and delta_error too. Returns what the errors of k add to the variance of an element of the query's d_q.
double backward_pairs(const QueryTerms& query, const KeyTerms& keys, const double* scores,
                      const double* d_p, double* p, double* p_variance, double* d_score,
                      double* d_score_variance, std::int64_t count);

}  // namespace sp::double_tiles
