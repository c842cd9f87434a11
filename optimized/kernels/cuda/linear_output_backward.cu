// The gradient of sums from that of the output: the normaliser, differentiated.
//
// With c = denominator + epsilon: d of the numerator is d_out / c, of the denominator -<d_out, out>/c.
// A warp per row; bound by memory.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/device.cuh"

namespace sp::SP_GPU {
namespace {

constexpr int kRowsPerBlock = 8;

struct OutputRows {
  std::int64_t count;  // n B H
  int B, H, E;
  bool normalised;
  float epsilon;
};

template <class S, class T>
__global__ void differentiate_output(OutputRows rows, View<S> d_sums, View<const T> d_out,
                                     View<const float> sums) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kRowsPerBlock + warp_id();
  if (row >= rows.count) return;  // the whole warp
  const std::int64_t i = row / (rows.B * rows.H);
  const int b = static_cast<int>(row / rows.H % rows.B), h = static_cast<int>(row % rows.H);
  const Global<S> to = d_sums.data + d_sums.offset(i, b, h);
  const Global<const T> gradient = d_out.data + d_out.offset(i, b, h);
  const Global<const float> sum = sums.data + sums.offset(i, b, h);
  const float divisor = rows.normalised ? sum.load(rows.E) + rows.epsilon : 1.0f;
  float along = 0;
  for (int e = lane_id(); e < rows.E; e += kWarp) {
    const float g = to_float(gradient.load(e));
    along += g * (sum.load(e) / divisor);
    to.store(e, from_float<S>(g / divisor));
  }
  if (!rows.normalised) return;
  along = warp_sum(along);
  if (lane_id() == 0) to.store(rows.E, from_float<S>(-along / divisor));
}

}  // namespace

void CudaKernels::do_linear_output_backward(const Tensor& d_sums, const Tensor& d_out,
                                            const Tensor& sums, double epsilon) {
  const Tensor::Extents& shape = d_out.shape();
  const OutputRows rows{shape[0] * shape[1] * shape[2], static_cast<int>(shape[1]),
                        static_cast<int>(shape[2]),     static_cast<int>(shape[3]),
                        sums.extent(3) > shape[3],      static_cast<float>(epsilon)};
  const auto blocks = static_cast<unsigned>((rows.count + kRowsPerBlock - 1) / kRowsPerBlock);
  visit_storage(d_sums.dtype(), [&]<class S>() {
    visit_storage(d_out.dtype(), [&]<class T>() {
      launch(gpu_, "linear_output_backward", differentiate_output<S, T>,
             {dim3(blocks), kRowsPerBlock * kWarp, 0}, rows, view<S>(d_sums), view<const T>(d_out),
             view<const float>(sums));
    });
  });
}

}  // namespace sp::SP_GPU
