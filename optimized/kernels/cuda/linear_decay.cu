// The gradient of the decays. That of token i is the sum of the decay terms from i to the end of its
// document in the chunk; where the document runs up to the chunk's end also <state, its gradient>
// there, which holds what later chunks add.
//
// Terms cancel, so sums are in double; every element is read once, so memory bounds all the same.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/linear_pieces.cuh"

namespace sp::SP_GPU {
namespace {

struct DecayArguments {
  View<const float> terms;           // [n, B, H, D or 1]
  View<const float> after, d_after;  // [F, B, H, W]; null: 0
  View<float> result;
  Documents documents;
  std::int64_t n;
  int B, D, F, W;
};

// This lane's part of <state, gradient> of the rows f, f + step, ...
__device__ double part_at_end(const DecayArguments& p, int b, int h, int f, int step, int rows) {
  double sum = 0;
  for (; f < rows; f += step) {
    const Global<const float> state = p.after.data + p.after.offset(f, b, h);
    const Global<const float> gradient = p.d_after.data + p.d_after.offset(f, b, h);
    for (int w = lane_id(); w < p.W; w += kWarp) sum += double{state.load(w)} * gradient.load(w);
  }
  return sum;
}

// ---- One decay per token and channel -----------------------------------------------------------

constexpr int kSteps = 8, kWarps = 8;  // a block takes kWarps * kSteps tokens of kWarp channels
constexpr int kBlockTokens = kSteps * kWarps;

// Sums from behind, block of tokens by block of tokens; of each, a warp has neighbouring tokens and a
// lane a channel. `result` may be `terms`.
__global__ void __launch_bounds__(kWarps* kWarp, 2) decays_per_channel(DecayArguments p) {
  const Shared<double> sums = shared_memory<double>(0);  // [2, warp, channel], in turns
  const Shared<int> open =
      shared_memory<int>(2 * kWarps * kWarp * static_cast<int>(sizeof(double)));
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z);
  const int first_channel = static_cast<int>(blockIdx.x) * kWarp, c = first_channel + lane_id();
  if (p.after.data) {
    for (int f = warp_id(); f < kWarp; f += kWarps) {
      const double end =
          warp_sum(part_at_end(p, b, h, first_channel + f, kWarp, min(p.D, first_channel + f + 1)));
      if (lane_id() == 0) sums.store(f, end);
    }
    block_barrier();
  }
  double carried = p.after.data ? sums.load(lane_id()) : 0;
  block_barrier();

  int turn = 0;
  for (std::int64_t block = (p.n - 1) / kBlockTokens; block >= 0; --block, turn ^= 1) {
    const std::int64_t first = block * kBlockTokens + warp_id() * kSteps;
    const Global<const float> from = p.terms.data + p.terms.offset(first, b, h, c);
    const std::int64_t mine = first + lane_id() % kSteps;
    const int own_begin = mine < p.n && p.documents.begins(b, mine) ? 1 : 0;
    float term[kSteps];
    bool begins[kSteps];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const bool inside = first + i < p.n && c < p.D;
      term[i] = inside ? from.load(i * p.terms.stride[0]) : 0.0f;
      begins[i] = shuffle(own_begin, i) != 0;
    }
    // What this warp hands to the tokens before it: the sum up to the first begin of a document.
    double sum = 0;
    bool all = true;  // no begin: what comes from behind goes on
#pragma unroll
    for (int i = kSteps - 1; i >= 0; --i) {
      sum += term[i];
      if (begins[i]) sum = 0;
      all = all && !begins[i];
    }
    const Shared<double> own_sums = sums + turn * kWarps * kWarp;
    const Shared<int> own_open = open + turn * kWarps;
    own_sums.store(warp_id() * kWarp + lane_id(), sum);
    if (lane_id() == 0) own_open.store(warp_id(), all ? 1 : 0);
    block_barrier();
    double from_behind = 0;
    for (int warp = kWarps - 1; warp >= 0; --warp) {
      if (warp == warp_id()) from_behind = carried;
      const double own = own_sums.load(warp * kWarp + lane_id());
      carried = own_open.load(warp) != 0 ? carried + own : own;
    }
    const Global<float> to = p.result.data + p.result.offset(first, b, h, c);
#pragma unroll
    for (int i = kSteps - 1; i >= 0; --i) {
      from_behind += term[i];
      if (first + i < p.n && c < p.D) {
        to.store(i * p.result.stride[0], static_cast<float>(from_behind));
      }
      if (begins[i]) from_behind = 0;
    }
  }
}

// ---- One decay per head ------------------------------------------------------------------------

constexpr int kThreads = 1024;

// Each term counts once for every token of its document up to its own. One block per head.
__global__ void __launch_bounds__(kThreads, 1) decay_per_head(DecayArguments p) {
  constexpr int kAll = kThreads / kWarp;
  const Shared<double> sums = shared_memory<double>(0);                                    // [warp]
  const Shared<int> begins = shared_memory<int>(kAll * static_cast<int>(sizeof(double)));  // [warp]
  const int h = static_cast<int>(blockIdx.x);
  double sum = 0;
  for (int b = 0; b < p.B; ++b) {
    std::int64_t start = 0;  // of the document of the token before the threads'
    for (std::int64_t first = 0; first < p.n; first += kThreads) {
      const std::int64_t token = first + thread_id();
      const bool inside = token < p.n;
      int latest = inside && p.documents.begins(b, token) ? thread_id() : -1;
      for (int step = 1; step < kWarp; step *= 2) {
        latest = max(latest, shuffle(latest, max(lane_id() - step, 0)));
      }
      if (lane_id() == kWarp - 1) begins.store(warp_id(), latest);
      block_barrier();
      int last = -1;
      for (int warp = 0; warp < kAll; ++warp) {
        if (warp == warp_id()) latest = max(latest, last);
        last = max(last, begins.load(warp));
      }
      block_barrier();
      const std::int64_t own = latest < 0 ? start : first + latest;
      if (inside) {
        const float term = p.terms.data.load(p.terms.offset(token, b, h));
        sum += static_cast<double>(token - own + 1) * term;
      }
      if (last >= 0) start = first + last;
    }
    if (p.after.data && p.n > 0) {
      sum += static_cast<double>(p.n - start) * part_at_end(p, b, h, warp_id(), kAll, p.F);
    }
  }
  sum = warp_sum(sum);
  if (lane_id() == 0) sums.store(warp_id(), sum);
  block_barrier();
  if (warp_id() > 0) return;
  sum = warp_sum(sums.load(lane_id()));
  static_assert(kAll == kWarp);
  if (lane_id() == 0) p.result.data.store(p.result.offset(0, 0, h), static_cast<float>(sum));
}

}  // namespace

void CudaKernels::do_linear_d_decay(const LinearBlock& block, const Tensor& decay_terms,
                                    const Tensor& after, const Tensor& d_after,
                                    const Tensor& d_log_decay) {
  const bool ends = after.defined() && d_after.defined();
  const auto H = static_cast<unsigned>(decay_terms.extent(2));
  const DecayArguments arguments{view<const float>(decay_terms),
                                 view<const float>(ends ? after : Tensor()),
                                 view<const float>(ends ? d_after : Tensor()),
                                 view<float>(d_log_decay),
                                 Documents(block.tokens, block.terms.segments, block.terms.causal),
                                 block.tokens.count,
                                 static_cast<int>(decay_terms.extent(1)),
                                 static_cast<int>(decay_terms.extent(3)),
                                 static_cast<int>(ends ? after.extent(0) : 0),
                                 static_cast<int>(ends ? after.extent(3) : 0)};
  constexpr int kDouble = static_cast<int>(sizeof(double)), kInt = static_cast<int>(sizeof(int));
  if (decay_of(block.terms.module) == Decay::kPerChannel) {
    if (arguments.n == 0) return;
    launch(gpu_, "linear_d_decay", &decays_per_channel,
           {dim3(static_cast<unsigned>((arguments.D + kWarp - 1) / kWarp), H,
                 static_cast<unsigned>(arguments.B)),
            kWarps * kWarp, 2 * kWarps * (kWarp * kDouble + kInt)},
           arguments);
  } else {
    launch(gpu_, "linear_d_decay", &decay_per_head,
           {dim3(H), kThreads, kThreads / kWarp * (kDouble + kInt)}, arguments);
  }
}

}  // namespace sp::SP_GPU
