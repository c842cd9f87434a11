// A dense transformer around an attention layer, as papers that time whole models need it: sizes,
// flops, and what tensor parallelism moves.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "harness/papers/replay.hpp"

namespace sp {

// LLaMA: gated feed-forward of three matrices, no biases.
struct DenseModel {
  std::string name;
  std::int64_t layers = 0, heads = 0, key_heads = 0, head_size = 0, feed_forward = 0;
  // Of the table `config`: name, layers, heads, key_heads, head_size, feed_forward.
  static DenseModel of(const Config& config);

  std::int64_t hidden() const { return heads * head_size; }
  std::int64_t weights() const;                  // of the matrices of all layers
  Problem attention(std::int64_t tokens) const;  // one causal layer in bf16, batch 1
  // What one of `ranks` devices does with whole heads, the last ones padded.
  Problem attention_of_heads(std::int64_t tokens, int ranks) const;
};

// Seconds of one all-reduce of `bytes` over `ranks` devices, and of the all-gather and the
// reduce-scatter that take its place where activations are sharded between the matrices.
double all_reduce_seconds(const Platform& platform, std::int64_t bytes, int ranks);
double gather_scatter_seconds(const Platform& platform, std::int64_t bytes, int ranks);

}  // namespace sp
