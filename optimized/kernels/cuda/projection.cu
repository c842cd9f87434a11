// The length projection of Linformer: keys and values shortened from m tokens to K' rows.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/product.cuh"

namespace sp::SP_GPU {
namespace {

// Batch elements and heads of x, which share one projection.
product::Extents extents_of(const Tensor& x, std::int64_t rows, std::int64_t columns,
                            std::int64_t depth) {
  product::Extents extents{rows, columns, depth};
  extents.axes[0] = static_cast<int>(x.extent(1));
  extents.axes[1] = static_cast<int>(x.extent(2));
  return extents;
}

}  // namespace

// projected [K', D] += projectionT [K', m] x [m, D]
void CudaKernels::do_project(const Tensor& projected, const Tensor& projection, const Tensor& x) {
  SP_CHECK(projection.dtype() == x.dtype(), "a projection has the type of what it projects");
  const product::Extents extents = extents_of(x, projected.extent(0), x.extent(3), x.extent(0));
  visit_storage(x.dtype(), [&]<class T>() {
    product::run(gpu_, "project", product::operand<T, true>(projection, {}),
                 product::operand<T, true>(x, {x, 0}), product::result(projected, {projected, 0}),
                 extents);
  });
}

// d_x [m, D] += projection [m, K'] d_projected [K', D]
// d_projection [m, K'] += sum over batch elements and heads of x [m, D] d_projectedT [D, K']
void CudaKernels::do_project_backward(const Tensor& d_x, const Tensor& d_projection,
                                      const Tensor& d_projected, const Tensor& projection,
                                      const Tensor& x) {
  SP_CHECK(projection.dtype() == x.dtype(), "a projection has the type of what it projects");
  SP_CHECK(d_projected.dtype() == DType::kF32, "gradients of projected rows are f32");
  const std::int64_t m = x.extent(0), D = x.extent(3), keys = d_projected.extent(0);
  const product::Extents extents = extents_of(x, m, D, keys);
  product::Extents summed = extents_of(x, m, keys, D);
  summed.summed = summed.axes[0] * summed.axes[1];
  visit_storage(x.dtype(), [&]<class T>() {
    product::run(gpu_, "project_d_x", product::operand<T>(projection, {}),
                 product::operand<float, true>(d_projected, {d_projected, 0}),
                 product::result(d_x, {d_x, 0}), extents);
    product::run(gpu_, "project_d_projection", product::operand<T>(x, {x, 0}),
                 product::operand<float>(d_projected, {d_projected, 0}),
                 product::result(d_projection, {}), summed);
  });
}

}  // namespace sp::SP_GPU
