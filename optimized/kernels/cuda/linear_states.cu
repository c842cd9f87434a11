// Sums of states over spans: into = decay(span) into + state, span by span.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {
namespace {

constexpr int kRowsOfBlock = 4 * kTileThreads / kWarp;  // features; a warp takes one at a time

struct AccumulateArguments {
  View<float> into;
  View<const float> state;
  View<const float> log_decay;  // [1, 1, H, 1] per head, [F, B, SH, 1] per channel, else null
  bool per_channel;
  Documents documents;  // of the span
  std::int64_t count;   // its tokens
  int F, W;
};

// The decay is not rounded first: in a long chain such errors would all have one sign.
__global__ void __launch_bounds__(kTileThreads) linear_accumulate(AccumulateArguments p) {
  const int s = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const bool reset = p.documents.begin_in(b, 0, p.count, shared_memory<int>(0));
  const int first = static_cast<int>(blockIdx.x) * kRowsOfBlock;
  for (int f = first + warp_id(); f < first + kRowsOfBlock && f < p.F; f += kTileThreads / kWarp) {
    double decay = 1;
    if (p.log_decay.data && !reset) {
      const std::int64_t at =
          p.per_channel ? p.log_decay.offset(f, b, s) : p.log_decay.offset(0, 0, s);
      const double times = p.per_channel ? 1.0 : static_cast<double>(p.count);
      decay = exp(times * p.log_decay.data.load(at));
    }
    const Global<float> into = p.into.data + p.into.offset(f, b, s);
    const Global<const float> state = p.state.data + p.state.offset(f, b, s);
    for (int w = lane_id(); w < p.W; w += kWarp) {
      const float from = state.load(w * p.state.stride[3]);
      const std::int64_t at = w * p.into.stride[3];
      const double held = reset ? 0.0 : decay * into.load(at);
      into.store(at, static_cast<float>(held + from));
    }
  }
}

}  // namespace

void CudaKernels::do_linear_accumulate(const Tensor& into, std::span<const StateSpan> spans,
                                       const LinearTerms& terms) {
  const Decay decay = decay_of(terms.module);
  for (const StateSpan& span : spans) {
    const bool per_channel = decay == Decay::kPerChannel;
    const Tensor& log_decay = per_channel ? span.log_decay : terms.log_decay;
    const AccumulateArguments arguments{
        view<float>(into),
        view<const float>(span.state),
        view<const float>(decay == Decay::kNone ? Tensor() : log_decay),
        per_channel,
        Documents(span.tokens, terms.segments, true),
        span.tokens.count,
        static_cast<int>(into.extent(0)),
        static_cast<int>(into.extent(3))};
    const auto blocks = static_cast<unsigned>((into.extent(0) + kRowsOfBlock - 1) / kRowsOfBlock);
    launch(
        gpu_, "linear_accumulate", &SP_GPU::linear_accumulate,
        {dim3(blocks, static_cast<unsigned>(into.extent(2)), static_cast<unsigned>(into.extent(1))),
         kTileThreads, kTileThreads / kWarp * static_cast<int>(sizeof(int))},
        arguments);
  }
}

}  // namespace sp::SP_GPU
