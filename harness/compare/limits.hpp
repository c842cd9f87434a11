// The tolerance table: how far a result may lie from the double reference. The only place where
// limits are set.
//
// Three sums of squares of a tensor's errors are held against those of its sizes, with x* the reference, u the unit
// roundoff of storage and w that of the accumulator type:
//
//   every element        |x - x*| <= u |x*| + 8 size + floor
//   every row of n       |x - x*| <= u |x*| + (4 + 4 / sqrt(n)) |size| + sqrt(n) floor   norms over the last axis
//   the tensor           the same over all of its R rows, with 1 + (3 + 4 / sqrt(n)) / sqrt(R)
//
// u x*     The last rounding to storage, element by element: an algorithm that rounds more often than it says fails.
// size     What independent roundings in the accumulator type amount to, element by element, as a standard deviation
//          (softmax_truth.hpp and linear_sizes.hpp have the derivations). With a second rounding of partial results, which
//          an algorithm declares (algorithm.hpp), size^2 of out grows by (u range(out))^2.
// factors  Sizes count every rounding with its largest value, 1.7 times its standard deviation at least, but for the
//          additions of a sum, which are so many that they count with the deviation itself. The more errors are summed up,
//          the less their sum strays: in a row what is common to its elements (lse, delta) may be all there is; of many
//          rows the expected norm itself is not reached. What is used of that, and what the limits refuse: the tables in
//          harness/README.md.
// floor    Half the distance of the smallest numbers of f16, once a rounding; 2^-126 where sums are f32, 1e-150 where
//          they are f64: smaller numbers may be flushed.
// f64      Sizes are doubled: the reference rounds like the algorithm.
// exact    Cases whose result is known bit for bit: equal to the reference rounded once to storage; lse as above.
// decays   Of their gradients every element by itself: each is a sum that holds most of its neighbour's, errors included.
// normaliser   Per element only, 8 w A with A the error of every step carried to the end (linear_terms.hpp). 8 stands for the
//          number of roundings on the way of one term, and was fitted with `seqpar verify --dtype f32`: over 30,000 problems
//          no error passed 0.77 of it. With the window of Based, 8 sizes of its softmax are added.
// hybrid   size^2 is the mean square, of the element and over its row, of what the tensor changes by when every layer errs by a quarter
//          of its own limit (harness/compare/stack_noise.hpp); half as many again are allowed, since products of
//          errors over layers have long tails.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "harness/compare/softmax_truth.hpp"

namespace sp {

struct Limit {
  double relative = 0;       // times |x*|
  double absolute = 0;       // the last rounding of the smallest numbers
  bool exact = false;        // equal to the reference rounded to storage
  HostTensor sizes{};        // absent: none
  double per_size = 0;       // times sizes[i] for element i
  bool independent = false;  // rows and the whole are held against the norms of their sizes

  double rounding(double expected) const { return relative * std::fabs(expected) + absolute; }
  double size(std::int64_t i) const { return sizes.absent() ? 0 : sizes.at(i); }
};

struct Limits {
  Limit out, lse, d_q, d_k, d_v, d_projection_k, d_projection_v, d_log_decay, d_gamma, d_beta;
};

// Times the norm of the sizes, of `rows` rows of `n` elements together.
double factor_of_element();
double factor_of_row(double n);
double factor_of_rows(double rows, double n);

Limits softmax_limits(const Problem& problem, const SoftmaxTruth& truth, int roundings,
                      bool exact_case);
// `sizes`: linear_sizes.hpp.
Limits linear_limits(const Problem& problem, const Outputs& sizes, bool exact_case);
// With a normaliser, and layers of stacks. `terms`: linear_terms.hpp; `window`: the truth about the softmax of Based, if any.
Limits term_limits(const Problem& problem, const Outputs& terms, const SoftmaxTruth* window);
// `sizes`: see above.
Limits stack_limits(const Problem& problem, const Outputs& sizes);

}  // namespace sp
