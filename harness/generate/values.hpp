// Filling tensors: seeded random values, and inputs whose attention is known exactly.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "reference/problem/problem.hpp"

namespace sp {

// SplitMix64: small, seeded, the same on every machine.
class Stream {
 public:
  explicit Stream(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t end) { return next() % end; }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double normal() {  // Box-Muller, one of the two
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(2 * 3.14159265358979323846 * uniform());
  }

 private:
  std::uint64_t state_;
};

struct Case;
// Decays and parameters of the module; in a stack, keys of linear layers that keep outputs as large
// as queries.
void add_linear_inputs(const Case& drawn, Stream& random, Inputs& inputs);

// Head size that kDominant needs to tell N keys apart.
std::int64_t dominant_head_size(std::int64_t N);

}  // namespace sp
