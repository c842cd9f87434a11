// What the kernel tests share: tensors from doubles and back, random operands, and attention as two
// plain loops in double that know nothing of the kernels.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "optimized/kernels/cpu/cpu_kernels.hpp"
#include "optimized/kernels/cpu/cpu_memory.hpp"

namespace sp::test {

// Row-major values of a tensor [n, B, H, d], widened.
struct Values {
  Tensor::Extents shape{0, 0, 0, 0};
  std::vector<double> data;

  explicit Values(Tensor::Extents extents, double value = 0);
  Values() = default;
  double& at(std::int64_t i, std::int64_t b, std::int64_t h, std::int64_t d);
  double at(std::int64_t i, std::int64_t b, std::int64_t h, std::int64_t d) const;
  double largest() const;  // of the absolute values; 0 of none
};

enum class Placement { kDense, kWindow };  // a window: every stride is larger than it has to be

class KernelsTest : public ::testing::Test {
 protected:
  // Uniform in [-magnitude, magnitude], rounded to dtype, so that every path starts from the same
  // numbers.
  Values random(Tensor::Extents shape, DType dtype, double magnitude = 1);

  Tensor poisoned(Tensor::Extents shape, DType dtype, Placement placement = Placement::kDense);
  Tensor put(const Values& values, DType dtype, Placement placement = Placement::kDense);
  Tensor put_ids(std::int64_t B, std::int64_t N, const std::vector<std::int32_t>& ids);

  void TearDown() override;

  CpuMemory memory_{Fence::kPoisonAndCanary};
  CpuKernels kernels_;

 private:
  std::uint64_t state_ = 0x9e3779b97f4a7c15u;
};

Values take(const Tensor& tensor);

// The elements of `actual` stay within limit(element index) of `expected`, NaN nowhere; infinities
// are equal.
void expect_within(const Values& actual, const Values& expected,
                   const std::function<double(std::size_t)>& limit, const std::string& what);
void expect_within(const Values& actual, const Values& expected, double limit,
                   const std::string& what);
void expect_bitwise(const Values& actual, const Values& expected, const std::string& what);

// A block of attention as plain values. `sees` decides on batch b, query position, key position.
struct PlainBlock {
  Values q, k, v;
  std::vector<std::int64_t> q_positions, k_positions;
  std::function<bool(std::int64_t b, std::int64_t query, std::int64_t key)> sees;
  double scale = 1;
};

struct PlainForward {
  Values out, lse;
  double largest_score = 0;      // of |scale q k| summed over absolute terms: what rounding acts on
  Values probabilities, scores;  // [n, B, H, m]; hidden scores are -inf
};
PlainForward plain_attention(const PlainBlock& block);

struct PlainGradients {
  Values d_q, d_k, d_v;
  Values d_q_terms, d_k_terms, d_v_terms;  // sums of the absolute values of what was added
};
PlainGradients plain_attention_backward(const PlainBlock& block, const PlainForward& forward,
                                        const Values& d_out, const Values& delta);

std::vector<std::int64_t> positions_of(const Tokens& tokens);

}  // namespace sp::test
