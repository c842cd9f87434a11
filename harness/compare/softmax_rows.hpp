// The blocked double side of softmax attention on plain arrays: softmax_truth() and the truth about Linformer's projected
// keys are made of it. Letters and equations are those of softmax_truth.hpp.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "harness/compare/softmax_truth.hpp"

namespace sp {

using Doubles = std::vector<double>;

// M keys are looked at: the tokens' own (M = N), or projected ones, which no mask hides.
struct SoftmaxInputs {
  const Problem& problem;
  std::int64_t M;
  Doubles q, k, v, d_out;    // [B, N, H, D], [B, M, G, D], [B, M, G, E], [B, N, H, E]
  Doubles k_error, v_error;  // [B, M, G]: of an element; empty: none, they are given
  Operands operands;
  bool backward;
};

struct Sized {
  Doubles exact, size;
  explicit Sized(std::int64_t count = 0) : exact(static_cast<std::size_t>(count)), size(exact) {}
};

struct SoftmaxRows {
  bool backward = false;
  Sized out, lse, d_q;  // of the queries asked for: [B, rows, H, E], [B, H, rows], [B, rows, H, D]
  Sized d_k, d_v;       // of the keys asked for
  Doubles partial;      // like out
};

SoftmaxRows softmax_rows(const SoftmaxInputs& inputs, std::span<const std::int64_t> queries,
                         std::span<const std::int64_t> keys);

Doubles doubles_of(const HostTensor& tensor);
void store(SoftmaxTruth& truth, HostTensor Outputs::* x, const Sized& values,
           const std::vector<std::int64_t>& shape);
SoftmaxTruth truth_of(const Problem& problem, const SoftmaxRows& result, std::int64_t rows);

}  // namespace sp
