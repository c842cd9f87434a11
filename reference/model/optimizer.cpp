// SPDX-License-Identifier: Apache-2.0
#include "reference/model/optimizer.hpp"

#include <cmath>
#include <numbers>

namespace sp::reference {

double learning_rate(const OptimizerConfig& c, std::int64_t step) {
  if (step <= c.warm_up) return c.rate * double(step) / double(c.warm_up);
  if (step >= c.steps) return c.least_rate;
  const double way = double(step - c.warm_up) / double(c.steps - c.warm_up);
  return c.least_rate + (c.rate - c.least_rate) * (1 + std::cos(std::numbers::pi * way)) / 2;
}

OptimizerState start_of(const ModelConfig& config) {
  OptimizerState state;
  for (const ParameterInfo& info : parameters_of(config)) {
    state.first.emplace_back(std::size_t(info.size()));
    state.second.emplace_back(std::size_t(info.size()));
  }
  return state;
}

double take_step(const ModelConfig& model, const OptimizerConfig& c, ParameterValues& gradients,
                 ParameterValues& parameters, OptimizerState& state) {
  const std::vector<ParameterInfo> infos = parameters_of(model);
  double squares = 0;
  for (const Values& gradient : gradients)
    squares += dot(gradient.data(), gradient.data(), std::ssize(gradient));
  const double norm = std::sqrt(squares);
  const double factor = c.clip > 0 && norm > c.clip ? c.clip / norm : 1;
  const double t = double(++state.step), rate = learning_rate(c, state.step);
  for (std::size_t p = 0; p < infos.size(); ++p) {
    const double decay = infos[p].decays ? c.weight_decay : 0;
    for (std::size_t i = 0; i < parameters[p].size(); ++i) {
      const double g = gradients[p][i] *= factor;
      double &m = state.first[p][i], &v = state.second[p][i], &w = parameters[p][i];
      m = c.beta1 * m + (1 - c.beta1) * g;
      v = c.beta2 * v + (1 - c.beta2) * g * g;
      const double upward = m / (1 - std::pow(c.beta1, t));
      const double size = std::sqrt(v / (1 - std::pow(c.beta2, t)));
      w -= rate * (upward / (size + c.epsilon) + decay * w);
    }
  }
  return norm;
}

}  // namespace sp::reference
