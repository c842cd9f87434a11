// What linear attention gives back: sums, or their first columns over the last, rounded to storage;
// and the kernels that form them.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/linear_launch.hpp"

namespace sp::SP_GPU {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

template <class T>
struct OutputArguments {
  View<T> out;
  View<const float> sums;
  std::int64_t rows;  // n B H
  int B, H, E;
  bool normalised;
  float epsilon;
};

// A warp per row.
template <class T>
__global__ void __launch_bounds__(kThreads) linear_output(OutputArguments<T> p) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp_id();
  if (row >= p.rows) return;
  const std::int64_t head = row % (static_cast<std::int64_t>(p.B) * p.H);
  const std::int64_t token = row / (static_cast<std::int64_t>(p.B) * p.H);
  const Global<const float> sums = p.sums.data + p.sums.offset(token, head / p.H, head % p.H);
  const Global<T> out = p.out.data + p.out.offset(token, head / p.H, head % p.H);
  const float divisor = p.normalised ? sums.load(p.E * p.sums.stride[3]) + p.epsilon : 1.0f;
  for (int e = lane_id(); e < p.E; e += kWarp) {
    out.store(e * p.out.stride[3], from_float<T>(sums.load(e * p.sums.stride[3]) / divisor));
  }
}

}  // namespace

void CudaKernels::do_linear_state(const LinearBlock& block, const Tensor& state) {
  const MappedVectors k(gpu_, block.terms, block.k);
  launch_pass(gpu_, block, nullptr, k, {}, {}, state);
}

void CudaKernels::do_linear_forward(const LinearBlock& block, const Tensor& before,
                                    const Tensor& sums, const Tensor& after) {
  const MappedVectors q(gpu_, block.terms, block.q), k(gpu_, block.terms, block.k);
  launch_intra(gpu_, block, q, k, sums);
  launch_pass(gpu_, block, &q, k, before, sums, after);
}

void CudaKernels::do_linear_output(const Tensor& out, const Tensor& sums, double epsilon) {
  visit_storage(out.dtype(), [&]<class T>() {
    const OutputArguments<T> arguments{view<T>(out),
                                       view<const float>(sums),
                                       out.extent(0) * out.extent(1) * out.extent(2),
                                       static_cast<int>(out.extent(1)),
                                       static_cast<int>(out.extent(2)),
                                       static_cast<int>(out.extent(3)),
                                       sums.extent(3) > out.extent(3),
                                       static_cast<float>(epsilon)};
    const auto blocks = static_cast<unsigned>((arguments.rows + kWarps - 1) / kWarps);
    launch(gpu_, "linear_output", &SP_GPU::linear_output<T>, {dim3(blocks, 1, 1), kThreads, 0},
           arguments);
  });
}

}  // namespace sp::SP_GPU
