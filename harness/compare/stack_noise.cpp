// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/stack_noise.hpp"

#include <algorithm>
#include <cmath>

#include "harness/compare/limits.hpp"
#include "harness/compare/linear_sizes.hpp"
#include "harness/compare/naive.hpp"
#include "harness/generate/values.hpp"
#include "reference/evaluate.hpp"
#include "reference/stack.hpp"

namespace sp {
namespace {

constexpr int kRuns = 3;

// Every element moved by its limit, up or down.
void move(HostTensor& tensor, const Limit& limit, Stream& random) {
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    const double size = limit.sizes.absent() ? 0 : limit.per_size * limit.sizes.at(i);
    const double by = limit.absolute + size;
    tensor.set(i, tensor.at(i) + (random.below(2) == 0 ? by : -by));
  }
}

// A layer that takes what was stored and errs as much as it may.
Outputs noisy_layer(const Problem& problem, const Inputs& given, Operands operands,
                    Stream& random) {
  Inputs inputs = given;
  inputs.q = given.q.cast(problem.dtype).cast(DType::kF64);
  if (!given.d_out.absent()) inputs.d_out = given.d_out.cast(problem.dtype).cast(DType::kF64);
  Outputs result = reference::evaluate(problem, inputs);
  const Limits limits =
      problem.module ? linear_limits_for(problem, linear_sizes(problem, inputs, result), false)
                     : limits_for(problem, inputs, result,
                                  naive_attention(problem, inputs, operands), 1, false);
  move(result.out, limits.out, random);
  move(result.d_q, limits.d_q, random);
  move(result.d_k, limits.d_k, random);
  move(result.d_v, limits.d_v, random);
  move(result.d_log_decay, limits.d_log_decay, random);
  return result;
}

void raise(HostTensor& most, const HostTensor& noisy, const HostTensor& exact) {
  if (exact.absent()) return;
  if (most.absent()) most = HostTensor(DType::kF64, {1});
  for (std::int64_t i = 0; i < exact.size(); ++i) {
    const double change = std::fabs(noisy.at(i) - exact.at(i));
    if (!(change <= most.at(0))) most.set(0, change);  // NaN stays, and fails
  }
}

}  // namespace

Outputs stack_noise(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                    Operands operands) {
  Outputs most;
  for (int run = 0; run < kRuns; ++run) {
    Stream random(static_cast<std::uint64_t>(run));
    const Outputs noisy =
        reference::stack(problem, inputs, [&](const Problem& layer, const Inputs& given) {
          return noisy_layer(layer, given, operands, random);
        });
    for (const auto x :
         {&Outputs::out, &Outputs::d_q, &Outputs::d_k, &Outputs::d_v, &Outputs::d_log_decay})
      raise(most.*x, noisy.*x, exact.*x);
  }
  return most;
}

}  // namespace sp
