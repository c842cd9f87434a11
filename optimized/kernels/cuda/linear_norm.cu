// The layer norm of Rebased: gamma (x - mean) / sqrt(var + 1e-6) + beta, of queries and keys.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/linear_norm.cuh"

namespace sp::SP_GPU {
namespace {

constexpr int kVectors = 8;  // of a block: one per warp

template <class T>
struct NormArguments {
  View<const T> x;
  View<const float> gamma, beta;
  Global<float> out;  // dense
  std::int64_t count;
  int B, H, D;
};

template <class T>
__global__ void __launch_bounds__(kVectors* kWarp) linear_norm(NormArguments<T> p) {
  const std::int64_t vector = static_cast<std::int64_t>(blockIdx.x) * kVectors + warp_id();
  if (vector >= p.count) return;
  const std::int64_t token = vector / (static_cast<std::int64_t>(p.B) * p.H);
  const auto head = static_cast<int>(vector % (static_cast<std::int64_t>(p.B) * p.H));
  const Rows<T> x = rows_of(p.x, token, head / p.H, head % p.H);
  const auto element = [&](int d) { return to_float(x.load(0, d)); };
  const NormStatistics statistics = norm_statistics(element, p.D);
  for (int d = lane_id(); d < p.D; d += kWarp) {
    const double normal = statistics.normal(element(d));
    const double gamma = p.gamma.data.load(p.gamma.offset(0, 0, 0, d));
    const double beta = p.beta.data.load(p.beta.offset(0, 0, 0, d));
    p.out.store(vector * p.D + d, static_cast<float>(gamma * normal + beta));
  }
}

}  // namespace

MappedVectors::MappedVectors(const Gpu& gpu, const LinearTerms& terms, const Tensor& x) : x_(x) {
  if (terms.module != Module::kRebased || !x.defined()) return;
  const std::int64_t D = x.extent(3), count = x.extent(0) * x.extent(1) * x.extent(2);
  scratch_ = std::make_unique<Scratch>(gpu, count * D * static_cast<std::int64_t>(sizeof(float)));
  visit_storage(x.dtype(), [&]<class T>() {
    const NormArguments<T> arguments{SP_GPU::view<const T>(x),
                                     SP_GPU::view<const float>(terms.gamma),
                                     SP_GPU::view<const float>(terms.beta),
                                     Global<float>(scratch_->as<float>()),
                                     count,
                                     static_cast<int>(x.extent(1)),
                                     static_cast<int>(x.extent(2)),
                                     static_cast<int>(D)};
    const auto blocks = static_cast<unsigned>((count + kVectors - 1) / kVectors);
    launch(gpu, "linear_norm", &linear_norm<T>, {dim3(blocks, 1, 1), kVectors * kWarp, 0},
           arguments);
  });
}

}  // namespace sp::SP_GPU
