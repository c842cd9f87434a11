// A whole model, the definition: loss and all gradients of one batch, in double on one device.
// README.md has the equations.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "reference/problem/model.hpp"
#include "reference/vectors.hpp"

namespace sp::reference {

// One list of values per parameter, in the order of parameters_of().
using ParameterValues = std::vector<Values>;

struct ModelResult {
  double loss = 0;            // sum of weight x negative log-likelihood over all tokens and heads
  ParameterValues gradients;  // of the loss
};

// Throws Error(kUsage) when parameters or batch contradict the model.
ModelResult evaluate_model(const ModelConfig& config, const ParameterValues& parameters,
                           const Batch& batch);

}  // namespace sp::reference
