// Random small problems of linear attention and hybrid stacks for the tests of the reference.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "reference/feature_map.hpp"
#include "reference/vectors.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp::test {

// Ids in runs; an id may return, which begins another document of linear attention.
inline std::vector<std::int32_t> segment_runs(Draw& draw, const Shape& s) {
  std::vector<std::int32_t> ids;
  std::int32_t id = 0;
  for (std::int64_t t = 0; t < s.B * s.N; ++t) {
    if (draw.integer(0, 4) == 0) id = static_cast<std::int32_t>(draw.integer(0, 2));
    ids.push_back(id);
  }
  return ids;
}

// log sigmoid(x) / 16 of gate logits, the gate of GLA; `spread` 20 makes strong gates.
inline HostTensor gates(Draw& draw, std::vector<std::int64_t> shape, double spread,
                        double divisor) {
  HostTensor x = draw.normal(DType::kF64, std::move(shape));
  for (std::int64_t n = 0; n < x.size(); ++n) {
    const double logit = std::clamp(spread * x.at(n), -20.0, 20.0);
    x.set(n, -std::log1p(std::exp(-logit)) / divisor);
  }
  return x;
}

inline void draw_module_inputs(Draw& draw, Case& c) {
  const auto [B, N, H, G, D, E] = c.problem.shape;
  const DType accumulator = accumulator_of(c.problem.dtype);
  const Module module = *c.problem.module;
  if (decay_of(module) == Decay::kPerHead)
    c.inputs.log_decay = HostTensor::from_doubles(accumulator, {H}, default_log_decay(module, H));
  if (module == Module::kGla)
    c.inputs.log_decay = gates(draw, {B, N, H, D}, 1, draw.coin() ? 16 : 1).cast(accumulator);
  if (module != Module::kRebased) return;
  c.inputs.gamma = draw.normal(accumulator, {D});
  c.inputs.beta = draw.normal(accumulator, {D});
}

inline Case linear_case(std::uint64_t seed, Module module, DType dtype = DType::kF64,
                        std::int64_t longest = 24) {
  Draw draw(seed);
  Case c;
  c.problem.shape = draw.shape(longest);
  c.problem.dtype = dtype;
  c.problem.module = module;
  c.problem.scale = is_normalised(module) ? 1 : default_scale(c.problem.shape);
  c.problem.epsilon = default_epsilon(module);
  c.problem.mask.causal = draw.coin();
  if (draw.coin()) c.problem.mask.segment_ids = segment_runs(draw, c.problem.shape);
  if (module == Module::kBased && c.problem.mask.causal && draw.coin())
    c.problem.mask.window = draw.integer(1, c.problem.shape.N + 1);
  c.inputs = draw.inputs(c.problem);
  draw_module_inputs(draw, c);
  return c;
}

// Layers of a stack share the mask; the module has no normaliser and no gates.
inline Case stack_case(std::uint64_t seed, const std::string& layers, Module module) {
  Draw draw(seed);
  Case c;
  c.problem.shape = draw.shape(16);
  c.problem.shape.E = c.problem.shape.D;
  c.problem.dtype = DType::kF64;
  c.problem.module = module;
  c.problem.layers = layers;
  c.problem.scale = default_scale(c.problem.shape);
  c.problem.mask.causal = true;
  if (draw.coin()) c.problem.mask.segment_ids = segment_runs(draw, c.problem.shape);
  const auto [B, N, H, G, D, E] = c.problem.shape;
  c.inputs = draw.inputs(c.problem);
  c.inputs.k = draw.normal(DType::kF64, {B, N, G * std::ssize(layers), D});
  c.inputs.v = draw.normal(DType::kF64, {B, N, G * std::ssize(layers), E});
  draw_module_inputs(draw, c);
  return c;
}

// Rebased divides by sums of squares that can be near 0 where features cancel: rounding grows by at
// most the ratio of the weights of parallel vectors to the normaliser of the worst query.
inline double conditioning(const Case& c) {
  if (c.problem.module != Module::kRebased) return 1;
  const auto [B, N, H, G, D, E] = c.problem.shape;
  const auto normal = [&, size = D](const HostTensor& x) {
    const reference::LayerNorm norm = reference::layer_norm(c.problem, c.inputs);
    const reference::Values raw = reference::doubles(x, x.shape());
    reference::Values y(raw.size());
    for (std::int64_t row = 0; row < x.size() / size; ++row)
      norm.apply(raw.data() + row * size, y.data() + row * size);
    return y;
  };
  const reference::Values q = normal(c.inputs.q), k = normal(c.inputs.k);
  const auto* ids =
      c.problem.mask.segment_ids.empty() ? nullptr : c.problem.mask.segment_ids.data();
  double worst = 1;
  for (std::int64_t row = 0; row < B * N * H; ++row) {
    const std::int64_t h = row % H, i = row / H % N, b = row / (H * N);
    const double* q_i = q.data() + row * D;
    double sum = 0, parallel = 0;
    const auto see = [&](std::int64_t j) {
      const double* k_j = k.data() + ((b * N + j) * G + h / (H / G)) * D;
      sum += std::pow(reference::dot(q_i, k_j, D), 2);
      parallel += reference::dot(q_i, q_i, D) * reference::dot(k_j, k_j, D);
    };
    for (std::int64_t j = i; j >= 0 && (j == i || !ids || ids[b * N + j] == ids[b * N + j + 1]);
         --j)
      see(j);
    for (std::int64_t j = i + 1;
         !c.problem.mask.causal && j < N && (!ids || ids[b * N + j] == ids[b * N + j - 1]); ++j)
      see(j);
    const double size = static_cast<double>(D);
    worst = std::max(worst, parallel / size / (sum / size + c.problem.epsilon));
  }
  return worst;
}

}  // namespace sp::test
