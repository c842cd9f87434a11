// Decays inside one sub-chunk: constant per head, or one per token and channel.
//
// Let b_j be the sum of the log decays from the sub-chunk's begin through token j. Factors are
// exp(b_j), exp(b_end - b_i) and exp(b_j - b_i) with i <= j: none exceeds 1, whatever the decay.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "optimized/kernels/cpu/matrix.hpp"
#include "optimized/kernels/cpu/scratch.hpp"
#include "optimized/kernels/linear.hpp"

namespace sp {

template <class T>
class ChunkDecay {
 public:
  ChunkDecay(Scratch& scratch, const LinearTerms& terms, std::int64_t D, std::int64_t chunk);

  bool none() const { return kind_ == Decay::kNone; }
  bool per_channel() const { return kind_ == Decay::kPerChannel; }

  void select(std::int64_t b, std::int64_t h);
  void load(std::int64_t begin, std::int64_t n);  // tokens of the chunk

  // Rows [n, D] of padded(D): token j times exp(b_j), or token i times exp(b_end - b_i).
  void fade_queries(T* rows) const;
  void fade_keys(T* rows) const;
  // state [D, W] in rows of padded(W), times exp(b_end)
  void fade_state(T* state, std::int64_t W) const;
  // s[j, i] times exp(b_j - b_i) for i <= j; other elements are not defined. Per head.
  void fade_scores(T* s, std::int64_t stride) const;

  // Per channel. Blocks of tile::kGatedRows tokens from the begin of the sub-chunk on.
  struct Block {
    const T* gates;        // [rows, D]: exp(log decay) of each token
    const T* query_decay;  // [rows, D]: from the block's begin through token j
    const T* key_decay;    // [rows, D]: from after token i through the block's end
    const T* whole;        // [D]: of all tokens of the block
  };
  Block block(std::int64_t begin) const;

 private:
  void load_gates(std::int64_t begin, std::int64_t n);
  void fade(T* rows, const T* inside, const T* outside) const;

  const LinearTerms& terms_;
  const Decay kind_;
  const std::int64_t D_, chunk_, stride_;
  std::int64_t n_ = 0;
  // Per head.
  double log_decay_ = 0;
  std::vector<T> powers_;  // [chunk + 1]: exp(m log_decay)
  T* reversed_ = nullptr;  // [chunk]: element t is exp((chunk - 1 - t) log_decay)
  // Per channel.
  Matrix gates_source_;
  T* gates_ = nullptr;         // [chunk, D]
  T* query_decay_ = nullptr;   // [chunk, D]
  T* key_decay_ = nullptr;     // [chunk, D]
  T* until_block_ = nullptr;   // [blocks, D]: from the sub-chunk's begin to the block's
  T* after_block_ = nullptr;   // [blocks, D]: from the block's end to the sub-chunk's
  std::vector<double> total_;  // [D], or [1] per head: b_end
};

}  // namespace sp
