// Linformer's projection: plain loops over batch, tokens and projected keys.
// SPDX-License-Identifier: Apache-2.0
#include "reference/projection.hpp"

namespace sp::reference {

Projection::Projection(const Problem& problem, const HostTensor& projection,
                       const HostTensor& tensor)
    : B(problem.shape.B),
      N(problem.shape.N),
      keys(problem.projected),
      width(problem.shape.G * tensor.extent(3)),
      matrix(doubles(projection, {N, keys})),
      x(doubles(tensor, {B, N, problem.shape.G, tensor.extent(3)})) {}

Values Projection::forward() const {
  Values projected(static_cast<std::size_t>(B * keys * width));
  for (Index b = 0; b < B; ++b)
    for (Index t = 0; t < N; ++t)
      for (Index m = 0; m < keys; ++m)
        add_scaled(projected.data() + (b * keys + m) * width, matrix.data()[t * keys + m],
                   x.data() + (b * N + t) * width, width);
  return projected;
}

void Projection::backward(const Values& d_projected, std::span<const Index> tokens, double* d_x,
                          double* d_matrix) const {
  const Index count = std::ssize(tokens);
  for (Index b = 0; b < B; ++b)
    for (Index r = 0; r < count; ++r)
      for (Index m = 0; m < keys; ++m) {
        const Index t = tokens.data()[r];
        const double* d = d_projected.data() + (b * keys + m) * width;
        add_scaled(d_x + (b * count + r) * width, matrix.data()[t * keys + m], d, width);
        d_matrix[r * keys + m] += dot(x.data() + (b * N + t) * width, d, width);
      }
}

}  // namespace sp::reference
