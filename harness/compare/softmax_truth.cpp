// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/softmax_truth.hpp"

#include <numeric>

#include "harness/compare/likeness.hpp"
#include "harness/compare/projected_truth.hpp"
#include "harness/compare/softmax_rows.hpp"
#include "reference/vectors.hpp"

namespace sp {
namespace {

SoftmaxTruth with_likeness(SoftmaxTruth truth, const Inputs& inputs) {
  const double factor = likeness(inputs);
  multiply_sizes(truth.sizes, factor);
  for (std::int64_t i = 0; factor > 1 && i < truth.partial.size(); ++i)
    truth.partial.set(i, factor * truth.partial.at(i));
  return truth;
}

}  // namespace

Doubles doubles_of(const HostTensor& tensor) { return reference::doubles(tensor, tensor.shape()); }

void store(SoftmaxTruth& truth, HostTensor Outputs::* x, const Sized& values,
           const std::vector<std::int64_t>& shape) {
  truth.exact.*x = HostTensor::from_doubles(DType::kF64, shape, values.exact);
  truth.sizes.*x = HostTensor::from_doubles(DType::kF64, shape, values.size);
}

SoftmaxTruth truth_of(const Problem& problem, const SoftmaxRows& result, std::int64_t rows) {
  const Shape& s = problem.shape;
  SoftmaxTruth truth;
  truth.partial = HostTensor::from_doubles(DType::kF64, {s.B, rows, s.H, s.E}, result.partial);
  store(truth, &Outputs::out, result.out, {s.B, rows, s.H, s.E});
  store(truth, &Outputs::lse, result.lse, {s.B, s.H, rows});
  if (!result.backward) return truth;
  store(truth, &Outputs::d_q, result.d_q, {s.B, rows, s.H, s.D});
  store(truth, &Outputs::d_k, result.d_k, {s.B, rows, s.G, s.D});
  store(truth, &Outputs::d_v, result.d_v, {s.B, rows, s.G, s.E});
  return truth;
}

SoftmaxTruth softmax_truth(const Problem& problem, const Inputs& inputs,
                           std::span<const std::int64_t> tokens, Operands operands) {
  const SoftmaxInputs arrays{problem,
                             problem.shape.N,
                             doubles_of(inputs.q),
                             doubles_of(inputs.k),
                             doubles_of(inputs.v),
                             doubles_of(inputs.d_out),
                             {},
                             {},
                             operands,
                             !inputs.d_out.absent()};
  return with_likeness(truth_of(problem, softmax_rows(arrays, tokens, tokens), std::ssize(tokens)),
                       inputs);
}

SoftmaxTruth softmax_truth(const Problem& problem, const Inputs& inputs, Operands operands) {
  if (problem.projected > 0) return with_likeness(projected_truth(problem, inputs), inputs);
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(problem.shape.N));
  std::iota(tokens.begin(), tokens.end(), 0);
  return softmax_truth(problem, inputs, tokens, operands);
}

}  // namespace sp
