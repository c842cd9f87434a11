// The problem: what is to be computed, shared by the reference and the distributed algorithms.
//
// Letters are the same everywhere: B batch, N tokens, H query heads, G key/value heads (G divides
// H), D head size of queries and keys, E head size of values. Rows that see no key have output 0
// and log-sum-exp -inf; every length including 0 is legal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
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
  bool operator==(const Mask&) const = default;
};

// Which attention the inputs describe; an algorithm serves exactly one family.
enum class Family : std::uint8_t {
  kSoftmax,           // softmax(scale q kT + mask) v
  kProjectedSoftmax,  // Linformer: keys and values projected along the length, no mask
  kLinear,            // linear attention of one module
  kHybrid,            // a stack of linear and softmax layers
};
std::string_view name_of(Family family);

// The kinds of linear attention: feature map, decay, normaliser (reference/README.md).
enum class Module : std::uint8_t {
  kBasic,      // identity map, no decay
  kLightning,  // identity map, one constant decay per head
  kRetention,  // the same with another rule for the decay
  kGla,        // identity map, one decay per token, head and channel
  kBased,      // second-order Taylor map, normalised; with a window also softmax over it
  kRebased,    // layer norm, then squares, normalised
};
constexpr Module kModules[] = {Module::kBasic, Module::kLightning, Module::kRetention,
                               Module::kGla,   Module::kBased,     Module::kRebased};
std::string_view name_of(Module module);
Module parse_module(std::string_view name);  // throws Error(kUsage) with the allowed names

enum class Decay : std::uint8_t { kNone, kPerHead, kPerChannel };
constexpr Decay decay_of(Module module) {
  if (module == Module::kGla) return Decay::kPerChannel;
  return module == Module::kLightning || module == Module::kRetention ? Decay::kPerHead
                                                                      : Decay::kNone;
}
constexpr bool is_normalised(Module module) {
  return module == Module::kBased || module == Module::kRebased;
}
double default_epsilon(Module module);  // 1e-10 for Based, 1e-5 for Rebased, else 0
// The decays of Lightning Attention and Retention by their rules: natural log, one per head.
std::vector<double> default_log_decay(Module module, std::int64_t H);

struct Problem {
  Shape shape;
  Mask mask;
  DType dtype = DType::kF32;   // storage of q, k, v, out, d_out and the returned gradients
  double scale = 1;            // multiplies q kT; 1 for Based and Rebased, whose maps scale
  std::int64_t projected = 0;  // Linformer: length K' of the projected keys; 0: softmax attention
  std::optional<Module> module{};  // linear attention; with layers: of the L layers
  double epsilon = 0;              // added to the normaliser of Based and Rebased
  // A stack, one letter per layer: L linear, N softmax. Layer l has the key/value heads [lG, (l+1)G)
  // of k and v, its queries are the outputs of layer l-1 (q for the first), and E = D.
  std::string layers{};

  Family family() const {
    if (!layers.empty()) return Family::kHybrid;
    if (module) return Family::kLinear;
    return projected > 0 ? Family::kProjectedSoftmax : Family::kSoftmax;
  }
  std::int64_t layer_count() const {
    return layers.empty() ? 1 : static_cast<std::int64_t>(layers.size());
  }
  bool operator==(const Problem&) const = default;
};
// Layer `layer` of a hybrid as a problem of its own.
Problem layer_of(const Problem& stack, std::int64_t layer);

// Throws Error(kUsage) with one sentence that names the offending value and what is allowed.
void validate(const Problem& problem);
std::string describe(const Problem& problem);  // one line, for messages and tables
double default_scale(const Shape& shape);      // 1/sqrt(D), of softmax attention

// Absent where the family, module or direction has no such tensor. With L layers in a hybrid stack
// k and v have L G heads. Decays and parameters hold the accumulator type.
struct Inputs {
  HostTensor q{};              // [B, N, H, D]
  HostTensor k{};              // [B, N, G, D]
  HostTensor v{};              // [B, N, G, E]
  HostTensor d_out{};          // [B, N, H, E]; absent: forward only
  HostTensor projection_k{};   // [N, K'], kProjectedSoftmax only: keys' = projection_kT k
  HostTensor projection_v{};   // [N, K']
  HostTensor log_decay{};      // natural log, <= 0: [H] per head, or [B, N, H, D] for GLA
  HostTensor gamma{}, beta{};  // [D], Rebased: weight and bias of the layer norm of q and k
};

struct Outputs {
  HostTensor out{};  // [B, N, H, E]
  HostTensor lse{};  // [B, H, N], natural logarithm; softmax families only
  HostTensor d_q{}, d_k{}, d_v{};
  HostTensor d_projection_k{}, d_projection_v{};
  HostTensor d_log_decay{}, d_gamma{}, d_beta{};  // like their inputs
};

// Throws Error(kUsage) when a tensor's shape or type contradicts the problem or holds NaN or Inf.
void validate(const Problem& problem, const Inputs& inputs);

}  // namespace sp
