// How long a kernel runs: the larger of compute and memory, with the shares of a kernel model.
// SPDX-License-Identifier: Apache-2.0
#include "harness/cluster/kernel_time.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace sp {
namespace {

Tensor phantom(DType dtype, Tensor::Extents shape) {
  return {std::make_shared<Storage>(), dtype, shape};
}

// 100 TFLOP/s for 16 bit, 10 for f32, 1 TB/s, nothing lost.
Device ideal() {
  Device device;
  device.memory_bandwidth = 1e12;
  device.half_flops = 100e12;
  device.f32_flops = 10e12;
  return device;
}

// An attention block with `pairs` of its n x m pairs visible; 2 batches, 4 heads of 64.
struct Block {
  std::int64_t n, m, pairs;
  DType dtype = DType::kBF16;
  std::int64_t flops() const { return attention_flops(pairs, 2, 4, 64, 64); }
  double forward(const Device& device) const {
    const Tensor reads[] = {phantom(dtype, {n, 2, 4, 64}), phantom(dtype, {m, 2, 2, 64}),
                            phantom(dtype, {m, 2, 2, 64})};
    return kernel_seconds(device, {"attention", flops(), 1}, reads, {});
  }
  double backward(const Device& device) const {
    const Tensor q = phantom(dtype, {n, 2, 4, 64}), k = phantom(dtype, {m, 2, 2, 64});
    const Tensor reads[] = {q, k, k, q, phantom(DType::kF32, {n, 2, 4, 64})};
    const std::int64_t work = attention_backward_flops(pairs, 2, 4, 64, 64);
    return kernel_seconds(device, {"attention_backward", work, 1}, reads, {});
  }
};

TEST(KernelTime, IsFlopsOverPeakForAnIdealDevice) {
  const Block block{512, 256, 512 * 256};
  EXPECT_DOUBLE_EQ(block.forward(ideal()), static_cast<double>(block.flops()) / 100e12);
  EXPECT_DOUBLE_EQ(block.backward(ideal()), 2.5 * block.forward(ideal()));
}

TEST(KernelTime, UsesThePeakOfTheOperands) {
  Block block{512, 256, 512 * 256};
  const double half = block.forward(ideal());
  block.dtype = DType::kF32;
  EXPECT_DOUBLE_EQ(block.forward(ideal()), 10 * half);
}

TEST(KernelTime, IsBytesOverBandwidthWhereMemoryIsTheLimit) {
  Device device = ideal();
  device.kernels.memory = 0.8;
  const Tensor tensor = phantom(DType::kF32, {1000, 1, 1, 1});
  const Tensor one[] = {tensor};
  EXPECT_DOUBLE_EQ(kernel_seconds(device, {"copy", 0, 8000}, one, one), 8000 / 0.8e12);
  EXPECT_DOUBLE_EQ(kernel_seconds(device, {"scores", 8, 8000}, one, one), 8000 / 0.8e12);
}

TEST(KernelTime, TakesTheMatrixShareForOtherProducts) {
  Device device = ideal();
  device.kernels.matrix = 0.5;
  const Tensor mixed[] = {phantom(DType::kF32, {8, 1, 1, 8}), phantom(DType::kBF16, {8, 1, 1, 8})};
  EXPECT_DOUBLE_EQ(kernel_seconds(device, {"linear_forward", 1'000'000, 1}, mixed, {}),
                   1e6 / (0.5 * 100e12));
}

TEST(KernelTime, AddsTheLaunchToWorkAndNothingToNoWork) {
  Device device = ideal();
  device.kernels.launch_s = 3e-6;
  const Tensor one[] = {phantom(DType::kF32, {1, 1, 1, 1})};
  EXPECT_DOUBLE_EQ(kernel_seconds(device, {"copy", 0, 8}, one, one), 3e-6 + 8e-12);
  EXPECT_EQ(kernel_seconds(device, {"copy", 0, 0}, {}, {}), 0);
}

TEST(KernelTime, FewRowsFillADeviceBadly) {
  Device device = ideal();
  device.kernels.half_rows = 512 * 8;
  const Block block{512, 256, 512 * 256};
  EXPECT_DOUBLE_EQ(block.forward(device), 2 * block.forward(ideal()));
  const Block more{5120, 256, 5120 * 256};
  EXPECT_DOUBLE_EQ(more.forward(device), 1.1 * more.forward(ideal()));
}

// In the last wave, half of it idle, a diagonal's rows see 512 keys, twice their average.
TEST(KernelTime, TheLastRowsOfADiagonalAreItsLongest) {
  Device device = ideal();
  device.kernels.half_rows = 512 * 8;
  const Block causal{512, 512, 512 * 513 / 2};
  EXPECT_NEAR(causal.forward(device) / causal.forward(ideal()), 1 + 2 * 512.0 / 513, 1e-9);
}

TEST(KernelTime, UnfusedMergesMoveMoreAndSumGradientsApart) {
  Device device = ideal();
  device.kernels.merge_traffic = 3;
  const Tensor sum = phantom(DType::kF32, {1000, 2, 4, 64});
  const Tensor tensors[] = {sum};
  EXPECT_DOUBLE_EQ(kernel_seconds(device, {"merge", 0, 1000}, tensors, tensors), 3000 / 1e12);
  EXPECT_DOUBLE_EQ(kernel_seconds(device, {"add", 0, 1000}, tensors, tensors), 1000 / 1e12);
  const Tensor q = phantom(DType::kBF16, {512, 2, 4, 64});
  const Tensor reads[] = {q, q, q, q};
  const Charge backward{"attention_backward", attention_backward_flops(512 * 512, 2, 4, 64, 64), 1};
  EXPECT_DOUBLE_EQ(kernel_seconds(device, backward, reads, tensors),
                   kernel_seconds(ideal(), backward, reads, tensors) +
                       2 * 2 * static_cast<double>(sum.bytes()) / 1e12);
}

TEST(KernelTime, FactorsAreOfTheirOwnPass) {
  Device device = ideal();
  device.kernels.attention_forward = 0.5;
  device.kernels.attention_backward = 0.25;
  const Block block{512, 256, 512 * 256};
  EXPECT_DOUBLE_EQ(block.forward(device), 2 * block.forward(ideal()));
  EXPECT_DOUBLE_EQ(block.backward(device), 4 * block.backward(ideal()));
}

TEST(KernelTime, TheDiagonalFactorIsForBlocksThatTheMaskCuts) {
  Device device = ideal();
  device.kernels.diagonal = 0.5;
  const Block causal{512, 512, 512 * 513 / 2}, strict{512, 512, 512 * 511 / 2};
  const Block whole{512, 512, 512 * 512}, zigzag{512, 512, 512 * 256};
  // An idle tile of one row hides half a pair per row.
  const double edge = 1 + 1.0 / 513;
  EXPECT_NEAR(causal.forward(device) / causal.forward(ideal()), 2, 1e-9);
  EXPECT_NEAR(causal.forward(ideal()) * 100e12 / static_cast<double>(causal.flops()), edge, 1e-9);
  EXPECT_NEAR(strict.forward(device) / strict.forward(ideal()), 2, 1e-9);
  EXPECT_DOUBLE_EQ(whole.forward(device), whole.forward(ideal()));
  EXPECT_DOUBLE_EQ(zigzag.forward(device), zigzag.forward(ideal()));
}

// Counted tile by tile: what a kernel computes that skips tiles without a visible pair.
TEST(KernelTime, WorkIsSkippedInWholeTiles) {
  for (const auto& [query_tile, key_tile] :
       {std::pair<std::int64_t, std::int64_t>{128, 128}, {64, 256}, {256, 64}, {2048, 4096}}) {
    Device device = ideal();
    device.kernels.query_tile = query_tile;
    device.kernels.key_tile = key_tile;
    for (const std::int64_t n : {4096, 8192, 16384}) {
      std::int64_t computed = 0;
      for (std::int64_t q = 0; q < n; q += query_tile) {
        for (std::int64_t k = 0; k < n; k += key_tile) {
          if (k < q + query_tile) computed += query_tile * key_tile;
        }
      }
      const Block causal{n, n, n * (n + 1) / 2}, whole{n, n, n * n};
      const double expected = static_cast<double>(computed) / static_cast<double>(n * n);
      EXPECT_NEAR(causal.forward(device) / whole.forward(device), expected,
                  1.0 / static_cast<double>(n))
          << n << ", " << query_tile << " x " << key_tile;
    }
  }
}

}  // namespace
}  // namespace sp
