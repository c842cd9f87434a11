// Verdicts: a result against the double reference, non-finite values first, then every element
// against its limit.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "harness/compare/limits.hpp"

namespace sp {

struct TensorVerdict {
  std::string name;
  std::int64_t elements = 0;
  // Elements above their limit, or non-finite where the reference is not (and the reverse).
  std::int64_t failures = 0;
  // The worst element: highest error over limit; a non-finite mismatch counts as infinite.
  std::int64_t worst = -1;  // flat index, -1: no elements
  double value = 0, expected = 0;
  double error = 0, limit = 0, ratio = 0;
  std::vector<std::int64_t> index;  // of the worst element
};

struct Verdict {
  std::vector<TensorVerdict> tensors;
  bool passed() const;
  const TensorVerdict* worst() const;  // highest ratio; null if there are no elements at all
};

// Compares the tensors that `result` holds; one that is absent there is not compared. `storage` is
// the type that results are rounded to in exact cases.
Verdict compare(const Outputs& result, const Outputs& exact, const Limits& limits, DType storage);
std::string describe(const TensorVerdict& verdict);  // one line

}  // namespace sp
