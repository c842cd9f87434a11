// A sum over ranks, in rank order: the additions of the communicators on hosts, so the same bits.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/rank_sum.hpp"
#include "optimized/kernels/cuda/vectors.cuh"

namespace sp::SP_GPU {
namespace {

constexpr int kMostSources = 64;

template <class T>
struct Sources {
  Global<const T> of[kMostSources];
  int count = 0;
};

// Every element belongs to one thread, which reads all sources before it writes.
template <class T>
__global__ void __launch_bounds__(kStrideThreads)
    add_ranks(Global<T> target, Sources<T> sources, std::int64_t elements) {
  const std::int64_t step = std::int64_t{gridDim.x} * kStrideThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kStrideThreads + thread_id(); i < elements;
       i += step) {
    T sum = sources.of[0].load(i);
    for (int rank = 1; rank < sources.count; ++rank) sum += sources.of[rank].load(i);
    target.store(i, sum);
  }
}

template <class T>
void add(const Gpu& gpu, const Tensor& target, const std::vector<Tensor>& tensors) {
  Sources<T> sources;
  for (const Tensor& tensor : tensors)
    sources.of[sources.count++] = Global<const T>(tensor.as<T>());
  launch(gpu, "add_ranks", add_ranks<T>, grid_stride(gpu, target.elements()),
         Global<T>(target.as<T>()), sources, target.elements());
}

}  // namespace

void sum_in_order(const Gpu& gpu, const Tensor& target, const std::vector<Tensor>& sources) {
  SP_CHECK(1 <= sources.size() && sources.size() <= kMostSources, "summands of a sum over ranks");
  if (target.dtype() == DType::kF64) {
    add<double>(gpu, target, sources);
  } else {
    SP_CHECK(target.dtype() == DType::kF32, "sums over ranks are taken in f32 or f64");
    add<float>(gpu, target, sources);
  }
}

}  // namespace sp::SP_GPU
