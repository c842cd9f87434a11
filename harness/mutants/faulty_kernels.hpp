// The base of faulty kernels: forwards everything and remembers the storage type of the problem.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "optimized/kernels/kernels_decorator.hpp"

namespace sp {

// Kernels on accumulators do not see the storage type: faults that round to it need it.
class FaultyKernels : public KernelsDecorator {
 public:
  using KernelsDecorator::KernelsDecorator;

 protected:
  void do_attention(const AttentionBlock& block, const Partial& result) override {
    storage_ = block.q.dtype();
    KernelsDecorator::do_attention(block, result);
  }
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override {
    storage_ = block.q.dtype();
    KernelsDecorator::do_attention_backward(block, d_out, lse, delta, gradients);
  }
  DType storage_ = DType::kF32;
};

template <class Fault>
std::unique_ptr<Kernels> make_faulty(Kernels& inner) {
  return std::make_unique<Fault>(inner);
}

}  // namespace sp
