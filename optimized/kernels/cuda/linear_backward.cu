// Linear attention backward, put together from its steps.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "optimized/kernels/cuda/cuda_kernels.hpp"
#include "optimized/kernels/cuda/linear_backward.hpp"

namespace sp::SP_GPU {
namespace {

std::int64_t extent(const Tensor& tensor, int axis, std::int64_t otherwise) {
  return tensor.defined() ? tensor.extent(axis) : otherwise;
}

// State heads of a chunk with keys: those of the keys unless each query head decays by itself.
std::int64_t state_heads(const LinearBlock& block) {
  return decay_of(block.terms.module) == Decay::kNone ? block.k.extent(2)
                                                      : block.terms.log_decay.extent(2);
}

View<float> dense_states(float* data, const BackwardChunk& chunk, std::int64_t columns) {
  View<float> states;
  states.data = Global<float>(data);
  states.stride[3] = 1;
  states.stride[0] = columns;
  states.stride[2] = chunk.F * states.stride[0];
  states.stride[1] = chunk.SH * states.stride[2];
  return states;
}

}  // namespace

BackwardChunk::BackwardChunk(const Gpu& on, const LinearBlock& chunk, const Tensor& gradient,
                             std::int64_t state_heads, std::int64_t width)
    : gpu(on),
      block(chunk),
      d_sums(gradient),
      n(chunk.tokens.count),
      B((chunk.q.defined() ? chunk.q : chunk.k).extent(1)),
      H(extent(chunk.q, 2, state_heads)),
      G(extent(chunk.k, 2, state_heads)),
      SH(state_heads),
      D((chunk.q.defined() ? chunk.q : chunk.k).extent(3)),
      F(features_of(chunk.terms.module, D)),
      E(extent(chunk.v, 3, 0)),
      W(width),
      q(gpu, chunk.terms, chunk.q),
      k(gpu, chunk.terms, chunk.k) {}

void sweep(const BackwardChunk& chunk, Direction direction, const Tensor& initial,
           const Tensor& result, bool adds,
           const std::function<void(const TileStates& states, const Span& span)>& use,
           std::int64_t state_bytes) {
  const int tiles = tiles_of(chunk.n);
  if (tiles <= 1 && !initial.defined() && !result.defined()) return use({}, {0, tiles});
  const std::int64_t columns = (chunk.W + 3) / 4 * 4;  // rows of whole 16 bytes
  const std::int64_t elements = chunk.B * chunk.SH * chunk.F * columns;
  const auto bytes = elements * static_cast<std::int64_t>(sizeof(float));
  const auto per_span = static_cast<int>(std::clamp<std::int64_t>(
      state_bytes / std::max<std::int64_t>(bytes, 1), 1, std::max(tiles, 1)));
  const int spans = std::max(1, (tiles + per_span - 1) / per_span);
  const Scratch scratch(chunk.gpu, (per_span + 1) * bytes);
  const TileStates states{dense_states(scratch.as<float>(), chunk, columns), elements};
  const View<float> carried =
      dense_states(scratch.as<float>() + per_span * elements, chunk, columns);

  for (int index = 0; index < spans; ++index) {
    const int place = direction == Direction::kForward ? index : spans - 1 - index;
    const Span span{place * per_span, std::min(per_span, tiles - place * per_span)};
    const bool last = index == spans - 1;
    const StatePass pass{.initial = index == 0 ? view<float>(initial) : carried,
                         .result = last ? view<float>(result) : carried,
                         .states = states,
                         .span = span,
                         .adds = adds};
    direction == Direction::kForward ? pass_keys(chunk, pass) : pass_queries(chunk, pass);
    use(states, span);
  }
}

void CudaKernels::do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                                    const Tensor& d_state) {
  const LinearBlock queries{block.q, {}, {}, block.tokens, block.terms};
  const BackwardChunk chunk(gpu_, queries, d_sums, d_state.extent(2), d_state.extent(3));
  if (chunk.empty()) return;
  const StatePass pass{
      .initial = {}, .result = view<float>(d_state), .states = {}, .span = {0, tiles_of(chunk.n)}};
  pass_queries(chunk, pass);
}

void CudaKernels::do_linear_d_q(const LinearBlock& block, const Tensor& before,
                                const Tensor& d_sums, const LinearGradients& gradients,
                                const Tensor& after) {
  const BackwardChunk chunk(gpu_, block, d_sums, state_heads(block), d_sums.extent(3));
  if (chunk.empty()) return;
  const VectorGradients d_q(gpu_, block.terms, block.q, gradients.d_q);
  sweep(chunk, Direction::kForward, before, after, true,
        [&](const TileStates& states, const Span& span) {
          add_d_q(chunk, {.target = d_q.target(),
                          .decay_terms = view<float>(gradients.decay_terms),
                          .states = states,
                          .span = span});
        });
  d_q.finish(gradients.d_gamma, gradients.d_beta);
}

void CudaKernels::do_linear_apply_d_q(const LinearBlock& block, const Tensor& state,
                                      const Tensor& d_sums, const LinearGradients& gradients) {
  LinearTerms terms = block.terms;  // one state for all tokens, whatever documents there are
  terms.causal = false;
  const LinearBlock queries{block.q, {}, {}, block.tokens, terms};
  const BackwardChunk chunk(gpu_, queries, d_sums, state.extent(2), state.extent(3));
  if (chunk.empty()) return;
  const VectorGradients d_q(gpu_, terms, block.q, gradients.d_q);
  add_d_q(chunk, {.target = d_q.target(),
                  .decay_terms = {},
                  .states = {view<float>(state), 0},
                  .span = {0, tiles_of(chunk.n)},
                  .intra = false});
  d_q.finish(gradients.d_gamma, gradients.d_beta);
}

void CudaKernels::do_linear_d_kv(const LinearBlock& block, const Tensor& d_after,
                                 const Tensor& d_sums, const LinearGradients& gradients,
                                 const Tensor& d_before) {
  const BackwardChunk chunk(gpu_, block, d_sums, state_heads(block), d_sums.extent(3));
  if (chunk.empty()) return;
  const VectorGradients d_k(gpu_, block.terms, block.k, gradients.d_k);
  sweep(chunk, Direction::kBackward, d_after, d_before, true,
        [&](const TileStates& states, const Span& span) {
          add_d_k(chunk, {.target = d_k.target(),
                          .decay_terms = view<float>(gradients.decay_terms),
                          .states = states,
                          .span = span});
          add_d_v(chunk, {.target = view<float>(gradients.d_v),
                          .decay_terms = {},
                          .states = states,
                          .span = span});
        });
  d_k.finish(gradients.d_gamma, gradients.d_beta);
}

void CudaKernels::do_linear_d_kv_inter(const LinearBlock& block, const Tensor& d_after,
                                       const LinearGradients& gradients) {
  const LinearBlock keys{{}, block.k, block.v, block.tokens, block.terms};
  const BackwardChunk chunk(gpu_, keys, {}, d_after.extent(2), d_after.extent(3));
  if (chunk.empty()) return;
  const VectorGradients d_k(gpu_, block.terms, block.k, gradients.d_k);
  sweep(chunk, Direction::kBackward, d_after, {}, false,
        [&](const TileStates& states, const Span& span) {
          add_d_k(chunk, {.target = d_k.target(),
                          .decay_terms = view<float>(gradients.decay_terms),
                          .states = states,
                          .span = span,
                          .intra = false});
          add_d_v(chunk, {.target = view<float>(gradients.d_v),
                          .decay_terms = {},
                          .states = states,
                          .span = span,
                          .intra = false});
        });
  d_k.finish(gradients.d_gamma, gradients.d_beta);
}

}  // namespace sp::SP_GPU
