// A hybrid stack: layers of linear and softmax attention, each the query of the next.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "reference/problem/problem.hpp"

namespace sp::reference {

// out of the last layer and, when inputs.d_out is present, d_q of the first, d_k and d_v [B, N, L G,
// .] of all, d_log_decay summed over the linear layers. Nothing is rounded between layers.
Outputs stack(const Problem& problem, const Inputs& inputs);

// The same of layers that `layer` evaluates instead of the reference.
using Layer = std::function<Outputs(const Problem&, const Inputs&)>;
Outputs stack(const Problem& problem, const Inputs& inputs, const Layer& layer);

}  // namespace sp::reference
