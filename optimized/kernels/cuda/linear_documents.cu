// Numbering documents: a running count of the places where the segment id changes.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/device.cuh"
#include "optimized/kernels/cuda/linear_documents.hpp"

namespace sp::SP_GPU {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// One block per sequence, kThreads positions at a time.
__global__ void __launch_bounds__(kThreads)
    number_documents(Mask mask, Global<int> numbers, std::int64_t N) {
  const int b = static_cast<int>(blockIdx.x);
  const Shared<int> sums = shared_memory<int>(0);  // of the warps
  int number = 0;                                  // before the positions in work
#pragma unroll 1
  for (std::int64_t first = 0; first < N; first += kThreads) {
    const auto i = static_cast<int>(first) + thread_id();
    const bool begins = i > 0 && i < N && mask.segment(b, i) != mask.segment(b, i - 1);
    int count = begins ? 1 : 0;
    for (int step = 1; step < kWarp; step *= 2) {
      const int lane = lane_id();
      const int more = shuffle(count, lane >= step ? lane - step : lane);
      if (lane >= step) count += more;
    }
    if (lane_id() == kWarp - 1) sums.store(warp_id(), count);
    block_barrier();
    int total = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      const int sum = sums.load(warp);
      if (warp < warp_id()) count += sum;
      total += sum;
    }
    if (i < N) numbers.store(b * N + i, number + count);
    number += total;
    block_barrier();
  }
}

const Tensor& segments_of(const MaskTerms& mask, const LinearTerms& terms) {
  return mask.segments.defined() ? mask.segments : terms.segments;
}

}  // namespace

DocumentMask::DocumentMask(const Gpu& gpu, const MaskTerms& mask, const LinearTerms& terms)
    : numbers_(gpu, segments_of(mask, terms).defined() ? segments_of(mask, terms).bytes() : 0),
      mask_({mask.band, segments_of(mask, terms)}) {
  const Tensor& segments = segments_of(mask, terms);
  if (!segments.defined()) return;
  const std::int64_t N = segments.extent(1);
  const Global<int> numbers(numbers_.as<int>());
  launch(gpu, "number_documents", &number_documents,
         {dim3(static_cast<unsigned>(segments.extent(0)), 1, 1), kThreads,
          kWarps * static_cast<int>(sizeof(int))},
         mask_, numbers, N);
  mask_.ids = numbers;
  mask_.sequence_stride = N;
  mask_.position_stride = 1;
}

}  // namespace sp::SP_GPU
