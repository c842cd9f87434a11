// The problem: what is to be computed, shared by the reference and the distributed algorithms.
//
// Letters are the same everywhere: B batch, N tokens, H query heads, G key/value heads (G divides
// H), D head size of queries and keys, E head size of values. Rows that see no key have output 0
// and log-sum-exp -inf; every length including 0 is legal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "reference/problem/dtype.hpp"
#include "reference/problem/host_tensor.hpp"

namespace sp {

struct Shape {
  std::int64_t B = 1;  // batch
  std::int64_t N = 0;  // tokens
  std::int64_t H = 1;  // query heads
  std::int64_t G = 1;  // key/value heads
  std::int64_t D = 1;  // head size of q and k
  std::int64_t E = 1;  // head size of v and out
  bool operator==(const Shape&) const = default;
};

// Query i sees key j iff every term that is present allows it.
struct Mask {
  bool causal = false;                    // j <= i
  std::int64_t window = 0;                // |i - j| < window; 0: no window
  std::vector<std::int32_t> segment_ids;  // [B, N]: equal ids; empty: no segments
};

// Which attention the inputs describe; an algorithm serves exactly one family.
enum class Family : std::uint8_t {
  kSoftmax,           // softmax(scale q kT + mask) v
  kProjectedSoftmax,  // Linformer: keys and values projected along the length, no mask
};

struct Problem {
  Shape shape;
  Mask mask;
  DType dtype = DType::kF32;   // storage of q, k, v, out, d_out and the returned gradients
  double scale = 1;            // multiplies q kT
  std::int64_t projected = 0;  // Linformer: length K' of the projected keys; 0: softmax attention
  Family family() const { return projected > 0 ? Family::kProjectedSoftmax : Family::kSoftmax; }
};

// Throws Error(kUsage) with one sentence that names the offending value and what is allowed.
void validate(const Problem& problem);
std::string describe(const Problem& problem);  // one line, for messages and tables
double default_scale(const Shape& shape);      // 1/sqrt(D)

struct Inputs {
  HostTensor q;             // [B, N, H, D]
  HostTensor k;             // [B, N, G, D]
  HostTensor v;             // [B, N, G, E]
  HostTensor d_out;         // [B, N, H, E]; absent: forward only
  HostTensor projection_k;  // [N, K'], kProjectedSoftmax only: keys' = projection_kT k
  HostTensor projection_v;  // [N, K']
};

struct Outputs {
  HostTensor out;  // [B, N, H, E]
  HostTensor lse;  // [B, H, N], natural logarithm
  HostTensor d_q, d_k, d_v;
  HostTensor d_projection_k, d_projection_v;
};

// Throws Error(kUsage) when a tensor's shape or type contradicts the problem or holds NaN or Inf.
void validate(const Problem& problem, const Inputs& inputs);

}  // namespace sp
