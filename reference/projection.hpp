// Linformer's projection along the length, x' = projectionT x per batch element, and its gradients.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "reference/problem/problem.hpp"
#include "reference/vectors.hpp"

namespace sp::reference {

struct Projection {
  Projection(const Problem& problem, const HostTensor& projection, const HostTensor& tensor);

  Index B, N, keys, width;  // keys = K'; width = G D for keys, G E for values
  Values matrix;            // [N, K']
  Values x;                 // [B, N, width]

  Values forward() const;  // [B, K', width]
  // Chosen tokens only, from d_projected [B, K', width]: adds to d_x [B, tokens, width] and
  // d_matrix [tokens, K'].
  void backward(const Values& d_projected, std::span<const Index> tokens, double* d_x,
                double* d_matrix) const;
};

}  // namespace sp::reference
