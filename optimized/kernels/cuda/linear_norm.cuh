// The statistics of a vector under the layer norm of Rebased.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {

struct NormStatistics {
  double mean, factor;  // factor: 1 / sqrt(var + 1e-6)
  __device__ double normal(float x) const { return (x - mean) * factor; }
};

// Of the D elements x(0), x(1), ... by a whole warp. In double: an x far from 0 must not cost the
// digits of its differences.
template <class X>
__device__ NormStatistics norm_statistics(X x, int D) {
  constexpr double kEpsilon = 1e-6;
  double sum = 0, squares = 0;
  for (int d = lane_id(); d < D; d += kWarp) sum += x(d);
  const double mean = warp_sum(sum) / D;
  for (int d = lane_id(); d < D; d += kWarp) {
    const double centred = x(d) - mean;
    squares += centred * centred;
  }
  return {mean, 1 / sqrt(warp_sum(squares) / D + kEpsilon)};
}

}  // namespace sp::SP_GPU
