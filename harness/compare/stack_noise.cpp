// SPDX-License-Identifier: Apache-2.0
#include "harness/compare/stack_noise.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "harness/compare/limits.hpp"
#include "harness/compare/linear_terms.hpp"
#include "harness/generate/values.hpp"
#include "reference/attention.hpp"
#include "reference/evaluate.hpp"
#include "reference/stack.hpp"

namespace sp {
namespace {

// A size that few runs estimate too low by chance would be a false alarm; 64 changes of every row where that is cheap.
std::int64_t runs_for(const Shape& shape) { return std::clamp<std::int64_t>(64 / shape.E, 8, 32); }

// Every element moved up or down, by its last rounding and a quarter of the rest of its limit: two sizes of softmax, as far
// as errors get in linear attention.
void move(HostTensor& tensor, const Limit& limit, Stream& random) {
  for (std::int64_t i = 0; i < tensor.size(); ++i) {
    const double x = tensor.at(i);
    const double by = limit.rounding(x) + limit.per_size * limit.size(i) / 4;
    tensor.set(i, x + (random.below(2) == 0 ? by : -by));
  }
}

Outputs exact_layer(const Problem& problem, const Inputs& inputs) {
  return problem.module ? reference::evaluate(problem, inputs)
                        : reference::attention(problem, inputs);
}

Limits limits_of_layer(const Problem& problem, const Inputs& inputs, Operands operands) {
  if (!problem.module)
    return softmax_limits(problem, softmax_truth(problem, inputs, operands), 1, false);
  const Outputs exact = exact_layer(problem, inputs);
  return term_limits(problem, linear_terms(problem, inputs, exact), nullptr);
}

// A layer that errs.
Outputs noisy_layer(const Problem& problem, const Inputs& inputs, const Limits& limits,
                    Stream& random) {
  Outputs result = exact_layer(problem, inputs);
  move(result.out, limits.out, random);
  move(result.d_q, limits.d_q, random);
  move(result.d_k, limits.d_k, random);
  move(result.d_v, limits.d_v, random);
  move(result.d_log_decay, limits.d_log_decay, random);
  return result;
}

// Adds to every element the square of its change and the mean square of its row's.
void add_squares(HostTensor& sizes, const HostTensor& noisy, const HostTensor& exact) {
  if (exact.absent()) return;
  if (sizes.absent()) sizes = HostTensor(DType::kF64, exact.shape());
  const std::int64_t width = exact.shape().back();
  for (std::int64_t begin = 0; begin < exact.size(); begin += width) {
    const auto squared_change = [&](std::int64_t i) {
      return (noisy.at(i) - exact.at(i)) * (noisy.at(i) - exact.at(i));
    };
    double sum = 0;
    for (std::int64_t i = begin; i < begin + width; ++i) sum += squared_change(i);
    for (std::int64_t i = begin; i < begin + width; ++i)
      sizes.set(i, sizes.at(i) + squared_change(i) + sum / static_cast<double>(width));
  }
}

}  // namespace

Outputs stack_noise(const Problem& problem, const Inputs& inputs, const Outputs& exact,
                    Operands operands) {
  constexpr HostTensor Outputs::* kTensors[] = {&Outputs::out, &Outputs::d_q, &Outputs::d_k,
                                                &Outputs::d_v, &Outputs::d_log_decay};
  // Of every call of a layer, forward and backward, from the first run: inputs that should vanish do not there.
  std::vector<Limits> limits;
  Outputs sizes;
  const std::int64_t runs = runs_for(problem.shape);
  for (std::int64_t run = 0; run < runs; ++run) {
    Stream random(static_cast<std::uint64_t>(run));
    std::size_t call = 0;
    const Outputs noisy =
        reference::stack(problem, inputs, [&](const Problem& layer, const Inputs& given) {
          if (run == 0) limits.push_back(limits_of_layer(layer, given, operands));
          return noisy_layer(layer, given, limits[call++], random);
        });
    for (const auto x : kTensors) add_squares(sizes.*x, noisy.*x, exact.*x);
  }
  for (const auto x : kTensors)
    for (std::int64_t i = 0; i < (sizes.*x).size(); ++i)
      (sizes.*x).set(i, std::sqrt((sizes.*x).at(i) / static_cast<double>(runs)));
  return sizes;
}

}  // namespace sp
