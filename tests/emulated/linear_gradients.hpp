// Linear attention backward on the GPU: what gradients are added to, how they are compared, and the
// cases, those of the CPU's kernels and heads of several tiles.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tests/emulated/linear_operands.hpp"

namespace sp::test {

class GpuLinearGradientTest : public GpuLinearTest {
 protected:
  // Everything that gradients are added to; decay terms start from 0.
  LinearGradients gradients(const LinearCase& c) {
    LinearGradients result{holding(c, {c.n, c.B, c.H, c.D}, kBefore),
                           holding(c, {c.n, c.B, c.G, c.D}, kBefore),
                           holding(c, {c.n, c.B, c.G, c.E}, kBefore),
                           {},
                           {},
                           {}};
    if (decay_of(c.module) != Decay::kNone) {
      result.decay_terms = holding(c, {c.n, c.B, c.H, c.module == Module::kGla ? c.D : 1}, 0);
    }
    if (c.module == Module::kRebased) {
      result.d_gamma = holding(c, {1, 1, 1, c.D}, kBefore);
      result.d_beta = holding(c, {1, 1, 1, c.D}, kBefore);
    }
    return result;
  }

  void expect_all_near(const LinearCase& c, const LinearGradients& actual,
                       const LinearResults& expected) {
    expect_near(c, actual.d_q, expected.d_q, "d_q", kBefore);
    expect_near(c, actual.d_k, expected.d_k, "d_k", kBefore);
    expect_near(c, actual.d_v, expected.d_v, "d_v", kBefore);
    if (c.module != Module::kRebased) return;
    expect_near(c, actual.d_gamma, expected.d_gamma, "d_gamma", kBefore);
    expect_near(c, actual.d_beta, expected.d_beta, "d_beta", kBefore);
  }

  // Per channel the result takes the place of the terms.
  void expect_decay_near(const LinearCase& c, const GpuOperands& o, const Tensor& terms,
                         const Tensor& after, const LinearResults& expected) {
    if (decay_of(c.module) == Decay::kNone) return;
    const Tensor result = c.module == Module::kGla ? terms : empty(c, expected.d_log_decay.value);
    gpu_.kernels().linear_d_decay(o.block(), terms, after, o.d_after, result);
    expect_near(c, result, expected.d_log_decay, "d_log_decay");
  }
};

inline std::vector<LinearCase> linear_gradient_cases() {
  std::vector<LinearCase> cases;
  for (const LinearCase& c : linear_cases()) {
    // The GPU's tiles have 64 tokens whatever the case says.
    if (c.dtype != DType::kF64 && c.chunk >= 64) cases.push_back(c);
  }
  for (const Module module : kModules) {
    const std::int64_t D = is_normalised(module) ? 16 : 128;
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      cases.push_back({.name = fmt::format("{}_large_heads_{}", name_of(module), name_of(dtype)),
                       .module = module,
                       .n = 70,
                       .first = 9,
                       .H = 2,
                       .D = D,
                       .E = 128,
                       .dtype = dtype});
    }
    cases.push_back({.name = fmt::format("{}_odd_large_heads", name_of(module)),
                     .module = module,
                     .n = 66,
                     .first = 9,
                     .H = 2,
                     .D = is_normalised(module) ? 13 : 101,
                     .E = 67,
                     .document = 50,
                     .dtype = DType::kBF16});
    cases.push_back({.name = fmt::format("{}_many_documents", name_of(module)),
                     .module = module,
                     .n = 200,
                     .first = 40,
                     .B = 2,
                     .H = 4,
                     .G = 2,
                     .D = 5,
                     .E = 4,
                     .document = 30});
    cases.push_back({.name = fmt::format("{}_long_documents", name_of(module)),
                     .module = module,
                     .n = 300,
                     .first = 40,
                     .B = 2,
                     .H = 2,
                     .D = 4,
                     .E = 5,
                     .document = 170,
                     .decay = 0.01});
    cases.push_back({.name = fmt::format("{}_long_chunk", name_of(module)),
                     .module = module,
                     .n = 1100,
                     .first = 300,
                     .D = 3,
                     .E = 2,
                     .document = 700,
                     .decay = 0.01});
    if (!is_normalised(module)) continue;
    cases.push_back({.name = fmt::format("{}_two_tiles_of_channels", name_of(module)),
                     .module = module,
                     .n = 5,
                     .first = 9,
                     .D = 67,
                     .E = 3});
  }
  return cases;
}

}  // namespace sp::test
