// What the kernels of linear attention work on: chunks of one rank, their states, their gradients.
//
// A chunk is a run of neighbouring tokens. The recurrence per state head, in global order:
//   S_i = exp(log_decay_i) S_{i-1} + phi(k_i) v_iT,   sums_j = scale phi(q_j)T S_j
// restarts from 0 wherever the segment id changes. reference/README.md has the mathematics.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "optimized/sharding/tokens.hpp"
#include "optimized/tensor.hpp"
#include "reference/problem/problem.hpp"

namespace sp {

// Tokens of one sub-chunk: products inside it are quadratic, between sub-chunks a state passes.
inline constexpr std::int64_t kLinearChunk = 64;

// The parts of linear attention that do not travel.
struct LinearTerms {
  Module module = Module::kBasic;
  double scale = 1;
  double epsilon = 0;
  Tensor log_decay{};      // accumulator type: [1, 1, H, 1], or [n, B, H, D] of the chunk
  Tensor gamma{}, beta{};  // accumulator type: [1, 1, 1, D]
  Tensor segments{};       // [B, N, 1, 1] i32 of the whole sequence, undefined: none
  bool causal = true;      // false: linear_d_state takes every token, as linear_apply does
  std::int64_t chunk = kLinearChunk;
};

// One chunk. Kernels that need only keys and values leave q alone, and the reverse.
struct LinearBlock {
  Tensor q;    // [n, B, H, D]
  Tensor k;    // [n, B, G, D]
  Tensor v;    // [n, B, G, E]
  Run tokens;  // positions, stride 1; count may be 0, then `first` is where the chunk would begin
  const LinearTerms& terms;
};

// The state of a chunk on its way: [F, B, SH, W] of accumulator type.
//   F   features: D, or those of Based and Rebased
//   SH  state heads: H with a decay, else G
//   W   E, and one column more for the normaliser
// Per-channel decay: log_decay is the sum over the chunk, [F, B, SH, 1]; else undefined.
struct StateSpan {
  Tensor state;
  Run tokens;
  Tensor log_decay;
};

// Gradients are added to what the tensors hold. Undefined where the module has none.
struct LinearGradients {
  Tensor d_q;  // [n, B, H, D]
  Tensor d_k;  // [n, B, G, D]
  Tensor d_v;  // [n, B, G, E]
  // q d_q - k d_k of every token and query head: [n, B, H, D] per channel, [n, B, H, 1] per head
  // (summed over channels). Their sums from a token on are the gradient of its decay.
  Tensor decay_terms;
  Tensor d_gamma, d_beta;  // [1, 1, 1, D]
};

// Features of one head: D; 1 + D + D(D+1)/2 for Based; D(D+1)/2 for Rebased.
std::int64_t features_of(Module module, std::int64_t D);
// Pairs (query, key <= query) inside sub-chunks of `chunk` tokens.
std::int64_t chunk_pairs(std::int64_t tokens, std::int64_t chunk);

struct LinearShape {
  std::int64_t B, H, SH, D, F, W;
};
LinearShape linear_shape(const Shape& shape, Module module);
// Flops of the kernels on a chunk of n tokens: products only, 2 per multiply-add; documents count
// as one dense document, and a first sub-chunk counts like the others.
struct LinearFlops {
  std::int64_t state;       // keys times values, or queries times gradients, into a state
  std::int64_t inter;       // queries times a state
  std::int64_t forward;     // inside sub-chunks, inter and state
  std::int64_t d_q;         // the same amount
  std::int64_t d_kv;        // both products recomputed, keys and values differentiated
  std::int64_t d_kv_inter;  // keys and values times the gradient of a state
};
LinearFlops linear_flops(const LinearShape& shape, std::int64_t n, std::int64_t chunk);

}  // namespace sp
