// Verdicts: a result against the double reference, non-finite values first, then every element, every
// row and every tensor against its limit.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "harness/compare/limits.hpp"

namespace sp {

// What softmax attention gives, by name.
inline constexpr std::pair<const char*, HostTensor Outputs::*> kSoftmaxResults[] = {
    {"out", &Outputs::out},
    {"lse", &Outputs::lse},
    {"d_q", &Outputs::d_q},
    {"d_k", &Outputs::d_k},
    {"d_v", &Outputs::d_v}};

// All that there may be, with the limit of each.
struct ResultField {
  const char* name;
  HostTensor Outputs::* tensor;
  Limit Limits::* limit;
};
inline constexpr ResultField kAllResults[] = {
    {"out", &Outputs::out, &Limits::out},
    {"lse", &Outputs::lse, &Limits::lse},
    {"d_q", &Outputs::d_q, &Limits::d_q},
    {"d_k", &Outputs::d_k, &Limits::d_k},
    {"d_v", &Outputs::d_v, &Limits::d_v},
    {"d_projection_k", &Outputs::d_projection_k, &Limits::d_projection_k},
    {"d_projection_v", &Outputs::d_projection_v, &Limits::d_projection_v},
    {"d_log_decay", &Outputs::d_log_decay, &Limits::d_log_decay},
    {"d_gamma", &Outputs::d_gamma, &Limits::d_gamma},
    {"d_beta", &Outputs::d_beta, &Limits::d_beta},
};

// An error against its limit: of an element, or the 2-norm over a row or a tensor.
struct Judgement {
  double error = 0, limit = 0;
  double ratio = 0;   // error / limit, infinite where no number can say it
  double beyond = 0;  // the same without the last rounding, of which either may be made
};

struct TensorVerdict {
  std::string name;
  std::int64_t elements = 0;
  // Elements above their limit, or non-finite where the reference is not (and the reverse).
  std::int64_t failures = 0;
  // The worst element: highest error over limit; a non-finite mismatch counts as infinite.
  std::int64_t worst = -1;  // flat index, -1: no elements
  double value = 0, expected = 0;
  Judgement element;                // the worst one
  std::vector<std::int64_t> index;  // of the worst element
  // Rows along the last axis, and all elements together, where the limits know them.
  std::int64_t rows = 0, row_failures = 0;
  Judgement row, whole;                 // the worst row
  std::vector<std::int64_t> row_index;  // without the last axis
  double row_size = 0, whole_size = 0;  // norms of the reference
  // Rows with a failing element or as a whole, numbered in order; of lse, elements.
  std::vector<std::int64_t> wrong;
  // How far limits are used up beyond the last rounding: the highest of all elements, rows and the whole.
  double beyond = 0;
  // False: half of what is right would pass as well, so that passing says nothing.
  bool decided = true;

  bool passed() const { return failures == 0 && row_failures == 0 && whole.ratio <= 1; }
  Judgement highest() const;  // of the worst element, the worst row and the whole
};

struct Verdict {
  std::vector<TensorVerdict> tensors;
  bool passed() const;
  bool decided() const;
  const TensorVerdict* worst() const;  // highest ratio; null if there are no elements at all
};

// Compares the tensors that `result` holds; one that is absent there is not compared. `storage` is
// the type that results are rounded to in exact cases.
Verdict compare(const Outputs& result, const Outputs& exact, const Limits& limits, DType storage);
std::string describe(const TensorVerdict& verdict);  // one line

}  // namespace sp
