// Random small problems for the tests of the reference, and differences that NaN cannot pass.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <string>

#include "reference/problem/problem.hpp"

namespace sp::test {

struct Case {
  Problem problem;
  Inputs inputs;
};

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : engine_(seed) {}

  std::int64_t integer(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(engine_);
  }
  bool coin() { return integer(0, 1) == 1; }

  HostTensor normal(DType dtype, std::vector<std::int64_t> shape) {
    HostTensor tensor(dtype, std::move(shape));
    std::normal_distribution<double> distribution;
    for (std::int64_t n = 0; n < tensor.size(); ++n) tensor.set(n, distribution(engine_));
    return tensor;
  }

  Shape shape(std::int64_t longest) {
    const std::int64_t G = integer(1, 2);
    return {integer(1, 2), integer(1, longest), G * integer(1, 3), G, integer(1, 9), integer(1, 9)};
  }

  Mask mask(const Shape& s) {
    Mask mask;
    mask.causal = coin();
    if (coin()) mask.window = integer(1, s.N + 1);
    if (coin()) mask.segment_ids.resize(static_cast<std::size_t>(s.B * s.N));
    for (std::int32_t& id : mask.segment_ids) id = static_cast<std::int32_t>(integer(0, 2));
    return mask;
  }

  Inputs inputs(const Problem& problem) {
    const auto [B, N, H, G, D, E] = problem.shape;
    const DType dtype = problem.dtype;
    Inputs inputs;
    inputs.q = normal(dtype, {B, N, H, D});
    inputs.k = normal(dtype, {B, N, G, D});
    inputs.v = normal(dtype, {B, N, G, E});
    inputs.d_out = normal(dtype, {B, N, H, E});
    if (problem.projected > 0) {
      inputs.projection_k = normal(dtype, {N, problem.projected});
      inputs.projection_v = normal(dtype, {N, problem.projected});
    }
    return inputs;
  }

  // Every third case is projected, the others draw each mask term.
  Case any(DType dtype, std::int64_t longest = 24) {
    Case c;
    c.problem.shape = shape(longest);
    c.problem.dtype = dtype;
    c.problem.scale = default_scale(c.problem.shape);
    if (integer(0, 2) == 0) {
      c.problem.projected = integer(1, 7);
    } else {
      c.problem.mask = mask(c.problem.shape);
    }
    c.inputs = inputs(c.problem);
    return c;
  }

 private:
  std::mt19937_64 engine_;
};

inline Case any_case(std::uint64_t seed, DType dtype, std::int64_t longest = 24) {
  return Draw(seed).any(dtype, longest);
}

inline std::string name(const Case& c, std::uint64_t seed) {
  return "seed " + std::to_string(seed) + ": " + describe(c.problem);
}

// max |a - b|; equal infinities agree, NaN anywhere or different shapes give NaN.
inline double difference(const HostTensor& a, const HostTensor& b) {
  if (a.shape() != b.shape()) return std::numeric_limits<double>::quiet_NaN();
  double worst = 0;
  for (std::int64_t n = 0; n < a.size(); ++n) {
    const double x = a.at(n), y = b.at(n);
    if (x == y) continue;
    if (!std::isfinite(x) || !std::isfinite(y)) return std::numeric_limits<double>::quiet_NaN();
    worst = std::max(worst, std::abs(x - y));
  }
  return worst;
}

inline double largest(const HostTensor& a) {
  double worst = 0;
  for (std::int64_t n = 0; n < a.size(); ++n) worst = std::max(worst, std::abs(a.at(n)));
  return worst;
}

inline bool same_bits(const HostTensor& a, const HostTensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() &&
         (a.size() == 0 ||
          std::memcmp(a.data(), b.data(),
                      static_cast<std::size_t>(a.size()) * size_of(a.dtype())) == 0);
}

inline bool same_bits(const Outputs& a, const Outputs& b) {
  return same_bits(a.out, b.out) && same_bits(a.lse, b.lse) && same_bits(a.d_q, b.d_q) &&
         same_bits(a.d_k, b.d_k) && same_bits(a.d_v, b.d_v) &&
         same_bits(a.d_projection_k, b.d_projection_k) &&
         same_bits(a.d_projection_v, b.d_projection_v) && same_bits(a.d_log_decay, b.d_log_decay) &&
         same_bits(a.d_gamma, b.d_gamma) && same_bits(a.d_beta, b.d_beta);
}

// Largest difference over all tensors, each relative to its natural scale: out to the largest value
// it mixes, lse and gradients to their largest element, and none to less than 1.
inline double relative_difference(const Outputs& result, const Outputs& truth) {
  double worst = 0;
  for (const auto tensor : {&Outputs::out, &Outputs::lse, &Outputs::d_q, &Outputs::d_k,
                            &Outputs::d_v, &Outputs::d_projection_k, &Outputs::d_projection_v,
                            &Outputs::d_log_decay, &Outputs::d_gamma, &Outputs::d_beta}) {
    const double scale = std::max(1.0, largest(truth.*tensor));
    const double error = difference(result.*tensor, truth.*tensor) / scale;
    if (!(error <= worst)) worst = error;
    if (std::isnan(worst)) return worst;
  }
  return worst;
}

// The rows of x [B, rows, ...], or of lse [B, H, rows], that belong to `tokens`.
inline HostTensor take(const HostTensor& x, std::size_t axis,
                       const std::vector<std::int64_t>& tokens) {
  std::vector<std::int64_t> shape = x.shape();
  std::int64_t outer = 1, inner = 1;
  for (std::size_t a = 0; a < axis; ++a) outer *= shape[a];
  for (std::size_t a = axis + 1; a < shape.size(); ++a) inner *= shape[a];
  shape[axis] = std::ssize(tokens);
  HostTensor rows(x.dtype(), shape);
  std::int64_t target = 0;
  for (std::int64_t o = 0; o < outer; ++o)
    for (const std::int64_t t : tokens)
      for (std::int64_t n = 0; n < inner; ++n)
        rows.set(target++, x.at((o * x.extent(axis) + t) * inner + n));
  return rows;
}

}  // namespace sp::test
