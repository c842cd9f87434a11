// How small a defect the limits refuse: defects of all sizes, planted into right results.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "harness/compare/oracle.hpp"

namespace sp {

// The smallest power of two that is refused, of a tensor; infinite where 1 passes, NaN where there is no such defect.
struct Sensitivity {
  std::string tensor;
  double row;      // the row of the middle token and the first head is scaled by 1 + eps
  double element;  // its largest element is
  double noise;    // normal noise of eps times the root mean square is added to the whole tensor
  // out: the weights of the first quarter of the keys are scaled by 1 + eps before they are normalised; d_q: what these keys
  // contribute is, d_k, d_v: what the last quarter of the queries does. lse: eps is added, everywhere.
  double part;
  double
      hop;  // the same contributions are rounded once more on their way, to a type of unit roundoff eps
};

// Of one problem with gradients; `sampled` says how it was compared. What is planted into is the double reference, rounded to storage after it.
std::vector<Sensitivity> sensitivity(const Problem& problem, const Inputs& inputs,
                                     Operands operands, const Sampling& sampling,
                                     bool* sampled = nullptr);

}  // namespace sp
