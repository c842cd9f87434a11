// The operands of a case of linear attention on the GPU, and results compared with the recurrence.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/emulated/gpu_fixture.hpp"
#include "tests/unit/kernels_linear_cases.hpp"

namespace sp::test {

struct GpuOperands {
  LinearTerms terms;
  Tensor q, k, v, before, d_sums, d_after;
  Run tokens;
  LinearBlock block() const { return {q, k, v, tokens, terms}; }
  LinearBlock queries() const { return {q, {}, {}, tokens, terms}; }
  LinearBlock keys() const { return {{}, k, v, tokens, terms}; }
};

class GpuLinearTest : public LinearTest {
 protected:
  GpuOperands move(const LinearCase& c, const LinearOperands& host) {
    const auto twin = [&](const Tensor& tensor) { return gpu_.twin(tensor, c.placement); };
    GpuOperands o{host.terms,        twin(host.q),      twin(host.k),       twin(host.v),
                  twin(host.before), twin(host.d_sums), twin(host.d_after), host.tokens};
    o.terms.log_decay = twin(host.terms.log_decay);
    o.terms.gamma = twin(host.terms.gamma);
    o.terms.beta = twin(host.terms.beta);
    o.terms.segments = gpu_.twin(host.terms.segments);
    return o;
  }
  // Tensors of f32: of nothing, and of one value.
  Tensor empty(const LinearCase& c, const Values& like) {
    return gpu_.poisoned(like.shape, DType::kF32, c.placement);
  }
  Tensor holding(const LinearCase& c, Tensor::Extents shape, double value) {
    return gpu_.put(Values(shape, value), DType::kF32, c.placement);
  }
  void expect_near(const LinearCase& c, const Tensor& actual, const Bounded& expected,
                   const char* what, double held = 0) {
    compare(c, put(gpu_.take(actual), DType::kF32), expected, what, held);
  }

  GpuFixture gpu_;
};

}  // namespace sp::test
