// Chunks that the tests of linear attention run: shapes around sub-chunk, block and lane boundaries,
// every module, documents, states before and after, strong decays, every storage type.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels_linear_oracle.hpp"

namespace sp::test {

inline std::vector<LinearCase> linear_cases() {
  std::vector<LinearCase> cases;
  const auto add = [&](LinearCase c, const std::string& what) {
    c.name = std::string(name_of(c.module)) + "_" + what;
    cases.push_back(c);
  };
  for (const Module module : kModules) {
    for (const std::int64_t n : {0, 1, 2, 15, 16, 17, 63, 64, 65, 130}) {
      add({.module = module, .n = n, .first = 7, .D = 5, .E = 3}, fmt::format("n{}", n));
    }
    for (const std::int64_t chunk : {1, 7, 16, 128}) {
      add({.module = module, .n = 100, .first = 1, .D = 4, .E = 4, .chunk = chunk},
          fmt::format("chunk{}", chunk));
    }
    add({.module = module, .n = 70, .first = 5, .B = 2, .H = 6, .G = 2, .D = 3, .E = 5}, "grouped");
    add({.module = module, .n = 70, .first = 5, .B = 2, .H = 3, .G = 1, .D = 3, .E = 5},
        "one_key_head");
    add({.module = module, .n = 100, .first = 0}, "at_the_begin");
    add({.module = module, .n = 100, .first = 40, .before = false}, "no_states");
    for (const std::int64_t document : {1, 10, 33, 150}) {
      add({.module = module,
           .n = 130,
           .first = 40,
           .B = 2,
           .H = 2,
           .G = 1,
           .D = 4,
           .E = 4,
           .chunk = 32,
           .document = document},
          fmt::format("documents{}", document));
    }
    add({.module = module, .n = 67, .first = 3, .D = 17, .E = 33}, "odd_sizes");
    add({.module = module, .n = 66, .first = 3, .D = 16, .E = 64}, "whole_lanes");
    add({.module = module, .n = 10, .first = 3, .E = 0}, "no_value_columns");
    add({.module = module, .n = 10, .first = 3, .B = 0}, "no_sequences");
    for (const DType dtype : {DType::kF64, DType::kBF16, DType::kF16}) {
      add({.module = module,
           .n = 90,
           .first = 3,
           .B = 2,
           .H = 2,
           .G = 1,
           .D = 6,
           .E = 7,
           .document = 40,
           .dtype = dtype},
          std::string(name_of(dtype)));
    }
    add({.module = module,
         .n = 90,
         .first = 3,
         .B = 2,
         .H = 4,
         .G = 2,
         .D = 6,
         .E = 7,
         .document = 40,
         .placement = Placement::kWindow},
        "windows_of_tensors");
    if (decay_of(module) == Decay::kNone) continue;
    for (const double decay : {1e-6, 1.0, 20.0, 1e4}) {
      add({.module = module,
           .n = 130,
           .first = 3,
           .H = 2,
           .G = 1,
           .D = 5,
           .E = 5,
           .document = 90,
           .decay = decay},
          fmt::format("decay_1e{}", std::lround(std::log10(decay) + 10)));
    }
  }
  return cases;
}

// The operands of a case as tensors.
struct LinearOperands {
  LinearInputs plain;
  LinearTerms terms;
  Tensor q, k, v, before, d_sums, d_after;
  Run tokens;
  LinearBlock block() const { return {q, k, v, tokens, terms}; }
  LinearBlock queries() const { return {q, {}, {}, tokens, terms}; }
  LinearBlock keys() const { return {{}, k, v, tokens, terms}; }
};

class LinearTest : public KernelsTest, public ::testing::WithParamInterface<LinearCase> {
 protected:
  LinearOperands draw(const LinearCase& c) {
    const DType acc = accumulator_of(c.dtype);
    const std::int64_t W = width_of(c), F = features_of(c.module, c.D);
    const Tensor::Extents state{F, c.B, state_heads_of(c), W};
    // Without a normaliser d_sums is d_out itself.
    const DType d_sums_type = is_normalised(c.module) ? acc : c.dtype;
    LinearOperands o;
    LinearInputs& in = o.plain;
    in.q = random({c.n, c.B, c.H, c.D}, c.dtype, c.magnitude);
    in.k = random({c.n, c.B, c.G, c.D}, c.dtype, c.magnitude);
    in.v = random({c.n, c.B, c.G, c.E}, c.dtype);
    in.d_sums = random({c.n, c.B, c.H, W}, d_sums_type);
    if (c.before) {
      in.before = random(state, acc);
      in.d_after = random(state, acc);
      o.before = put(in.before, acc, c.placement);
      o.d_after = put(in.d_after, acc, c.placement);
    }
    in.scale = is_normalised(c.module) ? 1 : 0.37;
    o.terms = {.module = c.module, .scale = in.scale, .causal = c.causal, .chunk = c.chunk};
    draw_decay(c, o, acc);
    if (c.module == Module::kRebased) {
      in.gamma = random({1, 1, 1, c.D}, acc);
      in.beta = random({1, 1, 1, c.D}, acc);
      o.terms.gamma = put(in.gamma, acc, c.placement);
      o.terms.beta = put(in.beta, acc, c.placement);
    }
    draw_segments(c, o);
    o.tokens = {c.first, 1, c.n};
    o.q = put(in.q, c.dtype, c.placement);
    o.k = put(in.k, c.dtype, c.placement);
    o.v = put(in.v, c.dtype, c.placement);
    o.d_sums = put(in.d_sums, d_sums_type, c.placement);
    return o;
  }

  // A tensor of accumulator type that holds `value`, or poison.
  Tensor filled(const LinearCase& c, const Values& like, double value) {
    return put(Values(like.shape, value), accumulator_of(c.dtype), c.placement);
  }
  Tensor fresh(const LinearCase& c, const Values& like) {
    return poisoned(like.shape, accumulator_of(c.dtype), c.placement);
  }

  static constexpr double kBefore = 0.5;  // what gradients and sums hold before

  // Roundings that any one term passes through: sums over tokens, features, values and channels,
  // and at most 64 more for the decay factors, the maps and the scale.
  static double error(const LinearCase& c) {
    const std::int64_t roundings =
        c.n + features_of(c.module, c.D) + width_of(c) + c.D + c.H / c.G + 64;
    return static_cast<double>(roundings) * unit_roundoff(accumulator_of(c.dtype));
  }
  static void compare(const LinearCase& c, const Tensor& actual, const Bounded& expected,
                      const char* what, double held = 0) {
    Values want = expected.value;
    // Gradients of v leave out the column of ones.
    if (actual.extent(3) < want.shape[3]) want = leading(want, actual.extent(3));
    Values terms = expected.terms;
    if (actual.extent(3) < terms.shape[3]) terms = leading(terms, actual.extent(3));
    for (double& value : want.data) value += held;
    expect_within(
        take(actual), want, [&](std::size_t i) { return error(c) * (terms.data[i] + held); }, what);
  }

  static Values leading(const Values& values, std::int64_t columns) {
    Values part({values.shape[0], values.shape[1], values.shape[2], columns});
    for (std::size_t i = 0; i < part.data.size(); ++i) {
      const auto width = static_cast<std::size_t>(columns);
      part.data[i] = values.data[i / width * static_cast<std::size_t>(values.shape[3]) + i % width];
    }
    return part;
  }

 private:
  void draw_decay(const LinearCase& c, LinearOperands& o, DType acc) {
    if (decay_of(c.module) == Decay::kNone) return;
    const bool per_head = decay_of(c.module) == Decay::kPerHead;
    Values& decay = o.plain.log_decay;
    decay = random(per_head ? Tensor::Extents{1, 1, c.H, 1} : Tensor::Extents{c.n, c.B, c.H, c.D},
                   acc, c.decay);
    for (double& value : decay.data) value = -std::fabs(value);
    o.terms.log_decay = put(decay, acc, c.placement);
  }

  void draw_segments(const LinearCase& c, LinearOperands& o) {
    if (c.document == 0) return;
    const std::int64_t N = c.first + c.n + 5;
    std::vector<std::int32_t> ids;
    for (std::int64_t b = 0; b < c.B; ++b) {
      for (std::int64_t i = 0; i < N; ++i) ids.push_back(id_of(c, b, i));
    }
    o.terms.segments = put_ids(c.B, N, ids);
  }
};

}  // namespace sp::test
