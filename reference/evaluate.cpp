// SPDX-License-Identifier: Apache-2.0
#include "reference/evaluate.hpp"

#include "reference/attention.hpp"
#include "reference/linear_attention.hpp"
#include "reference/stack.hpp"

namespace sp::reference {

Outputs evaluate(const Problem& problem, const Inputs& inputs) {
  switch (problem.family()) {
    case Family::kLinear:
      return linear_attention(problem, inputs);
    case Family::kHybrid:
      return stack(problem, inputs);
    case Family::kSoftmax:
    case Family::kProjectedSoftmax:
      break;
  }
  return attention(problem, inputs);
}

}  // namespace sp::reference
