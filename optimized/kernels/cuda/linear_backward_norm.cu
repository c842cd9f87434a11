// Gradients through the layer norm of Rebased: y = gamma x' + beta, x' = (x - mean) / sqrt(var + 1e-6).
//
//   d_x = (g - mean(g) - x' mean(g x')) / sqrt(var + 1e-6),  g = gamma d_y
//   d_gamma = sum of x' d_y,  d_beta = sum of d_y, over all vectors
//
// A warp per vector; bound by memory. Sums over vectors are in double and in one fixed order: lanes
// own channels, then the warps of a block, then the blocks.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cuda/linear_backward.hpp"
#include "optimized/kernels/cuda/linear_norm.cuh"

namespace sp::SP_GPU {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
constexpr std::int64_t kMostBlocks = 256;  // whose sums one thread adds up

template <class T>
struct NormGradients {
  View<const T> x;
  View<const float> gamma;
  Global<const float> d_y;  // [count, D]
  View<float> d_x;          // added to
  Global<double> sums;      // [blocks, 2, D]: of d_gamma, of d_beta
  std::int64_t count, per_block;
  int B, H, D;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 4) differentiate_norm(NormGradients<T> p) {
  const Shared<double> all = shared_memory<double>(0);  // [warp, 2, D]
  const Shared<double> own = all + warp_id() * 2 * p.D;
  for (int d = lane_id(); d < 2 * p.D; d += kWarp) own.store(d, 0);
  warp_barrier();
  const auto gamma = [&](int d) { return p.gamma.data.load(p.gamma.offset(0, 0, 0, d)); };
  const double per_channel = 1.0 / p.D;
  const std::int64_t begin = blockIdx.x * p.per_block;
  const std::int64_t end = min(begin + p.per_block, p.count);
  for (std::int64_t vector = begin + warp_id(); vector < end; vector += kWarps) {
    const std::int64_t token = vector / (std::int64_t{p.B} * p.H);
    const auto head = static_cast<int>(vector % (std::int64_t{p.B} * p.H));
    const Rows<T> x = rows_of(p.x, token, head / p.H, head % p.H);
    const Global<const float> d_y = p.d_y + vector * p.D;
    const Global<float> d_x = p.d_x.data + p.d_x.offset(token, head / p.H, head % p.H);
    const auto element = [&](int d) { return to_float(x.load(0, d)); };
    const NormStatistics statistics = norm_statistics(element, p.D);
    double g_sum = 0, along = 0;
    for (int d = lane_id(); d < p.D; d += kWarp) {
      const double normal = statistics.normal(element(d)), gradient = d_y.load(d);
      own.store(d, own.load(d) + gradient * normal);
      own.store(p.D + d, own.load(p.D + d) + gradient);
      g_sum += gamma(d) * gradient;
      along += gamma(d) * gradient * normal;
    }
    g_sum = warp_sum(g_sum) * per_channel;
    along = warp_sum(along) * per_channel;
    for (int d = lane_id(); d < p.D; d += kWarp) {
      const double normal = statistics.normal(element(d));
      const double change =
          statistics.factor * (double{gamma(d)} * d_y.load(d) - g_sum - normal * along);
      d_x.store(d, d_x.load(d) + static_cast<float>(change));
    }
  }
  block_barrier();
  for (int d = thread_id(); d < 2 * p.D; d += kThreads) {
    double sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += all.load(warp * 2 * p.D + d);
    p.sums.store(std::int64_t{blockIdx.x} * 2 * p.D + d, sum);
  }
}

// d_gamma and d_beta += the sums of all blocks.
__global__ void __launch_bounds__(kThreads)
    add_parameter_gradients(Global<const double> sums, int blocks, int D, View<float> d_gamma,
                            View<float> d_beta) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + thread_id();
  if (i >= 2 * D) return;
  double sum = 0;
  for (int block = 0; block < blocks; ++block) sum += sums.load(std::int64_t{block} * 2 * D + i);
  const bool gamma = i < D;
  const Global<float> to = gamma ? d_gamma.data + d_gamma.offset(0, 0, 0, i)
                                 : d_beta.data + d_beta.offset(0, 0, 0, i - D);
  to.store(0, to.load() + static_cast<float>(sum));
}

}  // namespace

VectorGradients::VectorGradients(const Gpu& gpu, const LinearTerms& terms, const Tensor& x,
                                 const Tensor& d_x)
    : gpu_(gpu), terms_(terms), x_(x), d_x_(d_x), target_(view<float>(d_x)) {
  if (terms.module != Module::kRebased) return;
  const std::int64_t bytes = x.elements() * static_cast<std::int64_t>(sizeof(float));
  scratch_.emplace(gpu, bytes);
  target_.data = Global<float>(scratch_->as<float>());
  for (int axis = 3; axis >= 0; --axis) {
    target_.stride[axis] = axis == 3 ? 1 : target_.stride[axis + 1] * x.extent(axis + 1);
  }
  if (bytes == 0) return;
  check(cudaMemsetAsync(scratch_->as<float>(), 0, static_cast<std::size_t>(bytes), gpu.compute()),
        "clearing gradients");
}

void VectorGradients::finish(const Tensor& d_gamma, const Tensor& d_beta) const {
  const std::int64_t count = x_.extent(0) * x_.extent(1) * x_.extent(2), D = x_.extent(3);
  if (!scratch_ || count == 0) return;
  const std::int64_t per_block =
      std::max<std::int64_t>(kWarps, (count + kMostBlocks - 1) / kMostBlocks);
  const auto blocks = static_cast<int>((count + per_block - 1) / per_block);
  const std::int64_t row = 2 * D * static_cast<std::int64_t>(sizeof(double));
  const Scratch sums(gpu_, blocks * row);
  visit_storage(x_.dtype(), [&]<class T>() {
    const NormGradients<T> arguments{
        view<const T>(x_),  view<const float>(terms_.gamma),   target_.data,
        view<float>(d_x_),  Global<double>(sums.as<double>()), count,
        per_block,          static_cast<int>(x_.extent(1)),    static_cast<int>(x_.extent(2)),
        static_cast<int>(D)};
    launch(gpu_, "linear_norm_backward", &differentiate_norm<T>,
           {dim3(static_cast<unsigned>(blocks)), kThreads, static_cast<int>(kWarps * row)},
           arguments);
  });
  launch(gpu_, "linear_norm_parameters", &add_parameter_gradients,
         {dim3(static_cast<unsigned>((2 * D + kThreads - 1) / kThreads)), kThreads, 0},
         Global<const double>(sums.as<double>()), blocks, static_cast<int>(D), view<float>(d_gamma),
         view<float>(d_beta));
}

}  // namespace sp::SP_GPU
