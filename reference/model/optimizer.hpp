// AdamW with clipping by the global norm and a warm-up to a cosine, the definition, in double.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "reference/model/model.hpp"

namespace sp::reference {

// Of step t = 1, 2, ...: rises linearly to `rate` over `warm_up` steps, then falls along half a cosine
// to `least_rate` at step `steps`, and stays there.
double learning_rate(const OptimizerConfig& config, std::int64_t step);

struct OptimizerState {
  std::int64_t step = 0;          // that have been taken
  ParameterValues first, second;  // moments
};
OptimizerState start_of(const ModelConfig& config);

// Gradients are scaled down to `clip` if their norm over all parameters is above it; then, per element,
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
//   w -= rate (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon) + decay w)   (Loshchilov and Hutter)
// with decay 0 for parameters that do not decay. Returns the norm before clipping.
double take_step(const ModelConfig& model, const OptimizerConfig& config,
                 ParameterValues& gradients, ParameterValues& parameters, OptimizerState& state);

}  // namespace sp::reference
