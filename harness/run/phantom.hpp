// Kernels and memory without data: tensors have shapes and no storage, so any size runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "optimized/algorithms/algorithm.hpp"
#include "optimized/kernels/kernels.hpp"
#include "optimized/memory.hpp"
#include "reference/problem/error.hpp"

namespace sp {

// A simulated device that is full: a row of its own in tables, not a failure.
class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const std::string& what) : Error(ErrorKind::kEnvironment, what) {}
};

class PhantomMemory : public Memory {
 public:
  static constexpr std::int64_t kUnlimited = -1;
  // resident: bytes that are taken before the first tensor.
  PhantomMemory(std::int64_t capacity, std::int64_t resident)
      : capacity_(capacity), resident_(resident) {}

  void upload(const Tensor&, const void*) override {}
  void download(void* host, const Tensor& tensor) const override;

 protected:
  std::byte* acquire(std::int64_t bytes, const char* name) override;  // throws OutOfMemory
  void release(std::byte*, std::int64_t) noexcept override {}

 private:
  std::int64_t capacity_, resident_;
};

// Every kernel is charged and observed as everywhere, and does nothing.
class PhantomKernels final : public Kernels {
 protected:
  void do_fill(const Tensor&, double) override {}
  void do_copy(const Tensor&, const Tensor&) override {}
  void do_add(const Tensor&, const Tensor&) override {}
  void do_attention(const AttentionBlock&, const Partial&) override {}
  void do_merge(const Partial&, const Partial&) override {}
  void do_attention_delta(const Tensor&, const Tensor&, const Tensor&) override {}
  void do_attention_backward(const AttentionBlock&, const Tensor&, const Tensor&, const Tensor&,
                             const AttentionGradients&) override {}
  void do_scores(const Tensor&, const Tensor&, const Tensor&, double) override {}
  void do_scores_softmax(const Tensor&, const Tensor&, const Tokens&, const Tokens&,
                         const MaskTerms*) override {}
  void do_scores_softmax_backward(const Tensor&, const Tensor&, double) override {}
  void do_scores_apply(const Tensor&, const Tensor&, const Tensor&) override {}
  void do_scores_apply_transposed(const Tensor&, const Tensor&, const Tensor&) override {}
  void do_project(const Tensor&, const Tensor&, const Tensor&) override {}
  void do_project_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                           const Tensor&) override {}
  void do_linear_state(const LinearBlock&, const Tensor&) override {}
  void do_linear_accumulate(const Tensor&, std::span<const StateSpan>,
                            const LinearTerms&) override {}
  void do_linear_forward(const LinearBlock&, const Tensor&, const Tensor&, const Tensor&) override {
  }
  void do_linear_inter(const LinearBlock&, const Tensor&, const Tensor&) override {}
  void do_linear_output(const Tensor&, const Tensor&, double) override {}
  void do_linear_output_backward(const Tensor&, const Tensor&, const Tensor&, double) override {}
  void do_linear_d_state(const LinearBlock&, const Tensor&, const Tensor&) override {}
  void do_linear_d_q(const LinearBlock&, const Tensor&, const Tensor&, const LinearGradients&,
                     const Tensor&) override {}
  void do_linear_d_kv(const LinearBlock&, const Tensor&, const Tensor&, const LinearGradients&,
                      const Tensor&) override {}
  void do_linear_d_kv_inter(const LinearBlock&, const Tensor&, const LinearGradients&) override {}
  void do_linear_d_decay(const LinearBlock&, const Tensor&, const Tensor&, const Tensor&,
                         const Tensor&) override {}
  void do_linear_apply(const LinearBlock&, const Tensor&, const Tensor&) override {}
  void do_linear_apply_d_q(const LinearBlock&, const Tensor&, const Tensor&,
                           const LinearGradients&) override {}
  void do_linear_block(const AttentionBlock&, const LinearTerms&, const Tensor&) override {}
  void do_linear_block_backward(const AttentionBlock&, const LinearTerms&, const Tensor&,
                                const AttentionGradients&, const Tensor&) override {}
};

// What scatter() of harness/run makes of a problem's inputs, without them.
Shards phantom_shards(const Problem& problem, const Layout& layout, int rank, Memory& memory);
Tensor phantom_d_out(const Problem& problem, const Layout& layout, int rank, Memory& memory);

}  // namespace sp
