// The length projection of Linformer: keys and values shortened from m tokens to K' rows.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/product.hpp"

namespace sp {
namespace {

template <class F>
void for_each_head(const Tensor& tensor, F f) {
  for (std::int64_t b = 0; b < tensor.extent(1); ++b) {
    for (std::int64_t g = 0; g < tensor.extent(2); ++g) f(b, g);
  }
}

}  // namespace

void CpuKernels::do_project(const Tensor& projected, const Tensor& projection, const Tensor& x) {
  const Matrix weights = head_of(projection, 0, 0);  // [m, K'], shared by all heads
  for_each_head(x, [&](std::int64_t b, std::int64_t g) {
    multiply_add(scratch_, head_of(projected, b, g), transposed(weights), {head_of(x, b, g)});
  });
}

void CpuKernels::do_project_backward(const Tensor& d_x, const Tensor& d_projection,
                                     const Tensor& d_projected, const Tensor& projection,
                                     const Tensor& x) {
  const Matrix weights = head_of(projection, 0, 0);
  const Matrix d_weights = head_of(d_projection, 0, 0);
  for_each_head(x, [&](std::int64_t b, std::int64_t g) {
    const Matrix d_head = head_of(d_projected, b, g);
    multiply_add(scratch_, head_of(d_x, b, g), {weights}, {d_head});
    multiply_add(scratch_, d_weights, {head_of(x, b, g)}, transposed(d_head));
  });
}

}  // namespace sp
