// The tolerance table: how far a result may lie from the double reference. The only place where
// limits are set.
//
// An element x of a tensor passes when |x - x*| <= relative |x*| + absolute, with x* the reference,
// u the unit roundoff of the storage type and w that of the accumulator type.
//
// tensor       relative  absolute
// out          u         2 naive + (r-1) u V + 8 w (1 + L) V
// lse          w         2 naive + 8 w (1 + L)
// d_q          u         3 r naive + 8 w (1 + L) 2 R K + 4 w X K
// d_k          u         3 r naive + 8 w (1 + L) (C + p R) Q + 4 w X p Q
// d_v          u         3 r naive + 8 w (1 + L) p max |d_out|
// exact case   every tensor but lse: equal to the reference rounded once to storage
//
// naive      Largest error of the naive version in the accumulator type (harness/compare/naive.hpp)
//            on the same problem, measured in the same run: whatever the problem does to rounding,
//            it does to both. Factors 2 and 3 as in FlashAttention's tests.
// u |x*|     The last rounding to storage, elementwise: an algorithm that rounds more often than it
//            says fails.
// r          Roundings of the algorithm (algorithm.hpp): a partial result that travels in the
//            storage type adds an error of at most u V, since partial results are convex
//            combinations of rows of v. V = max |v|. Gradients feel it through delta, as they
//            feel the rounding of out in the naive version: r times that error.
// 8 w (1+L)  Merging by log-sum-exp: each lse is rounded at magnitude L = max |lse|, which moves
//            the weights of a merge by w L; a merge takes four such roundings and the errors of a
//            chain of merges are weighted by ever smaller weights, hence a constant, not the number
//            of ranks. The same term covers naive errors that are zero by chance.
// R C p      What a small factor on every probability does to the gradients, from sums that the
//            naive run takes: R the largest sum over keys of |d_score| of a query, C that over
//            queries of a key, p the largest sum of probabilities of a key. d_score = scale p (dp - delta), and
//            delta moves by at most R with it. K, Q: max |k|, max |q|.
// X          scale max_i sum_e |d_out| V: dp and delta are sums of E products each, and where they
//            cancel (a query with one key) all that is left is their rounding.
// sampled    Where the reference is sampled there is no naive run: 64 w (1 + L) stands for it and
//            for merging, and R, C, p are bounded. Measured over lengths up to 32K tokens the
//            errors stay below a quarter of it.
// operands   Kernels that round p and d_score to storage before they multiply them (tensor cores,
//            Operands::kStorage) err by u more per term: u A is added element by element, A the sum
//            of the absolute values of the terms; where rows are sampled u V, u R K, u C Q and
//            u p max |d_out| stand for it. Such a kernel's own limit, whatever algorithm calls it.
// subnormal  f16 results round absolutely: r times half of 2^-24 is added to every absolute limit
//            of f16 storage.
// linear     absolute = kLinear w A, element by element, with A the element's size, the sum of the
//            absolute values of its terms (harness/compare/linear_sizes.hpp), relative = u. kLinear
//            stands for the number of roundings on the way of one term, and was fitted with
//            `seqpar verify --dtype f32`: over 30,000 problems no error passed 0.77 of it.
// hybrid     absolute = 2 times the largest change of the tensor when every layer errs by its own
//            limit (harness/compare/stack_noise.hpp), relative = u.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "harness/compare/naive.hpp"

namespace sp {

struct Limit {
  double relative = 0;
  double absolute = 0;
  bool exact = false;   // equal to the reference rounded to storage
  double per_size = 0;  // times sizes[i] for element i
  HostTensor sizes{};   // absent: none
};

struct Limits {
  Limit out, lse, d_q, d_k, d_v, d_projection_k, d_projection_v, d_log_decay, d_gamma, d_beta;
};

// `exact` is the double reference and `naive` the yardstick for the same problem.
Limits limits_for(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                  const NaiveOutputs& naive, int roundings, bool exact_case);

// The same for sampled rows, without a yardstick.
Limits sampled_limits_for(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                          int roundings, bool exact_case, Operands operands);

// Linear attention: `sizes` holds the sums of absolute values of every result.
Limits linear_limits_for(const Problem& problem, const Outputs& sizes, bool exact_case);

// A hybrid stack: `noise` holds the largest change of every result, one element per tensor.
Limits stack_limits_for(const Problem& problem, const Outputs& noise);

}  // namespace sp
