// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "harness/generate/cases.hpp"
#include "harness/generate/values.hpp"

namespace sp {
namespace {

double log_sigmoid(double x) { return -std::log1p(std::exp(-x)); }

// One gate of GLA or, by the same kinds, one constant decay whose rule says `rule`.
double log_decay(Decays decays, Stream& random, double rule) {
  switch (decays) {
    case Decays::kRule:
      return rule;
    case Decays::kNone:
      return 0;
    case Decays::kStrong:
      return log_sigmoid(20 * random.normal());
    case Decays::kMixed:
      break;
  }
  constexpr double kErase = -120;  // exp of it is 0 in f32
  const std::uint64_t kind = random.below(4);
  if (kind == 0) return 0;
  if (kind == 1) return kErase;
  return kind == 2 ? log_sigmoid(20 * random.normal()) : rule;
}

HostTensor log_decays(const Case& drawn, Stream& random) {
  const Problem& problem = drawn.problem;
  const Shape& s = problem.shape;
  const DType type = accumulator_of(problem.dtype);
  if (decay_of(*problem.module) == Decay::kPerHead) {
    HostTensor tensor(type, {s.H});
    const std::vector<double> rule = default_log_decay(*problem.module, s.H);
    for (std::int64_t h = 0; h < s.H; ++h)
      tensor.set(h, log_decay(drawn.decays, random, rule[static_cast<std::size_t>(h)]));
    return tensor;
  }
  HostTensor tensor(type, {s.B, s.N, s.H, s.D});
  for (std::int64_t i = 0; i < tensor.size(); ++i)
    tensor.set(i, log_decay(drawn.decays, random, log_sigmoid(random.normal()) / 16));
  return tensor;
}

// A linear layer sums over its keys what a softmax layer averages.
void even_out_keys(const Problem& problem, HostTensor& k) {
  const Shape& s = problem.shape;
  const double even = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(1, s.N)));
  const std::int64_t width = s.G * s.D;
  for (std::int64_t i = 0; i < k.size(); ++i) {
    const std::int64_t layer = i / width % problem.layer_count();
    if (problem.layers[static_cast<std::size_t>(layer)] == 'L') k.set(i, even * k.at(i));
  }
}

}  // namespace

void add_linear_inputs(const Case& drawn, Stream& random, Inputs& inputs) {
  const Problem& problem = drawn.problem;
  if (!problem.layers.empty()) even_out_keys(problem, inputs.k);
  if (decay_of(*problem.module) != Decay::kNone) inputs.log_decay = log_decays(drawn, random);
  if (problem.module != Module::kRebased) return;
  const DType type = accumulator_of(problem.dtype);
  inputs.gamma = HostTensor(type, {problem.shape.D});
  inputs.beta = inputs.gamma;
  for (std::int64_t c = 0; c < problem.shape.D; ++c) {
    inputs.gamma.set(c, 1 + 0.2 * random.normal());
    inputs.beta.set(c, 0.2 * random.normal());
  }
}

}  // namespace sp
