// The bases of faulty kernels: they forward everything and remember what faults need to know.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "optimized/kernels/kernels_decorator.hpp"
#include "optimized/memory.hpp"

namespace sp {

// Kernels on accumulators do not see the storage type: faults that round to it need it.
class FaultyKernels : public KernelsDecorator {
 public:
  // `memory` is for tensors of the fault's own, on no ledger.
  FaultyKernels(Kernels& inner, Memory& memory) : KernelsDecorator(inner), memory_(memory) {}

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
  void do_linear_block(const AttentionBlock& block, const LinearTerms& terms,
                       const Tensor& sums) override {
    storage_ = block.q.dtype();
    KernelsDecorator::do_linear_block(block, terms, sums);
  }
  void do_linear_block_backward(const AttentionBlock& block, const LinearTerms& terms,
                                const Tensor& d_out, const AttentionGradients& gradients,
                                const Tensor& d_log_decay) override {
    storage_ = block.q.dtype();
    KernelsDecorator::do_linear_block_backward(block, terms, d_out, gradients, d_log_decay);
  }
  Memory& memory_;
  DType storage_ = DType::kF32;
};

// Kernels that add up states do not see whose they are for, nor in which pass.
class FaultyStates : public FaultyKernels {
 public:
  using FaultyKernels::FaultyKernels;

 protected:
  void do_linear_state(const LinearBlock& block, const Tensor& state) override {
    chunk_ = block.tokens;
    storage_ = block.k.dtype();
    FaultyKernels::do_linear_state(block, state);
  }
  void do_linear_d_state(const LinearBlock& block, const Tensor& d_sums,
                         const Tensor& d_state) override {
    chunk_ = block.tokens;
    backward_ = true;
    FaultyKernels::do_linear_d_state(block, d_sums, d_state);
  }
  Run chunk_{};            // whose state was formed last: one's own, where states are gathered
  bool backward_ = false;  // of the first layer that was differentiated, and ever after
};

template <class Fault>
std::unique_ptr<Kernels> make_faulty(Kernels& inner, Memory& memory) {
  return std::make_unique<Fault>(inner, memory);
}

}  // namespace sp
