// Softmax attention by its definition, pair by pair, in f64: the yardstick of a witness. What has no loops of its own here
// is done by the CPU's kernels in f64.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/kernels_decorator.hpp"

namespace sp {

class PlainKernels final : public KernelsDecorator {
 public:
  PlainKernels() : KernelsDecorator(cpu_) {}

 protected:
  void do_attention(const AttentionBlock& block, const Partial& result) override;
  void do_merge(const Partial& into, const Partial& from) override;
  void do_attention_delta(const Tensor& delta, const Tensor& d_out, const Tensor& out) override;
  void do_attention_backward(const AttentionBlock& block, const Tensor& d_out, const Tensor& lse,
                             const Tensor& delta, const AttentionGradients& gradients) override;

 private:
  CpuKernels cpu_;
};

}  // namespace sp
