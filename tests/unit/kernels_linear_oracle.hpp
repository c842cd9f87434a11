// Linear attention of one chunk as the recurrence over tokens, in double, forward and backward, with
// the sum of the absolute values of everything that a result is made of beside it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "kernels_fixture.hpp"

namespace sp::test {

struct LinearCase {
  std::string name{};
  Module module = Module::kBasic;
  std::int64_t n = 0;
  std::int64_t first = 0;  // position of the first token
  std::int64_t B = 1, H = 1, G = 1, D = 8, E = 8;
  std::int64_t chunk = 64;
  std::int64_t document = 0;  // tokens of a document, 0: no ids
  bool before = true;         // whether there is a state before and a gradient after
  DType dtype = DType::kF32;
  Placement placement = Placement::kDense;
  double decay = 0.1;  // log decays are drawn from [-decay, 0]
  double magnitude = 1;
  bool causal = true;
};

inline std::int64_t width_of(const LinearCase& c) {
  return c.E + (is_normalised(c.module) ? 1 : 0);
}
inline std::int64_t state_heads_of(const LinearCase& c) {
  return decay_of(c.module) == Decay::kNone ? c.G : c.H;
}
// Alternating ids, so that equal ids are not always one document; later in later sequences.
std::int32_t id_of(const LinearCase& c, std::int64_t b, std::int64_t position);
// Whether the document of the token at `position` has tokens before it.
bool continues(const LinearCase& c, std::int64_t b, std::int64_t position);

struct LinearInputs {
  Values q, k, v, log_decay, gamma, beta;
  Values before, d_sums, d_after;
  double scale = 1;
};

// A value and the sum of the absolute values of its terms.
struct Bounded {
  Values value, terms;
  Bounded() = default;
  explicit Bounded(Tensor::Extents shape) : value(shape), terms(shape) {}
};

struct LinearResults {
  Bounded sums, after;
  Bounded d_q, d_k, d_v, d_before;
  Bounded d_log_decay;  // [n, B, H, D] or [1, 1, H, 1]
  Bounded d_gamma, d_beta;
};

// The states of `inputs` are taken for 0 where they are empty; without k and v no token adds to them.
LinearResults plain_linear(const LinearCase& c, const LinearInputs& inputs);

}  // namespace sp::test
