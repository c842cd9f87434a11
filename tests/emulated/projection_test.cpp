// Linformer's projection on the emulated GPU against the CPU's kernels, bit for bit: the operands
// are small integers, whose sums are exact in every order and every type.
// SPDX-License-Identifier: Apache-2.0
#include "tests/emulated/product_cases.hpp"

namespace sp::test {
namespace {

struct Sizes {
  std::int64_t m, K, D, B = 1, G = 1;  // K: projected rows
};
// Sums over more than 1,000 tokens are split over blocks.
constexpr Sizes kSizes[] = {
    {0, 4, 3},          {3, 0, 5},           {1, 1, 1},     {63, 64, 65},       {65, 63, 16},
    {100, 65, 9, 2, 2}, {130, 129, 8, 1, 3}, {1100, 10, 5}, {1601, 8, 8, 2, 1},
};

using EmulatedProjection = ProductTest;

TEST_P(EmulatedProjection, EqualsTheCpuForEverySize) {
  const auto [dtype, placement] = GetParam();
  for (const Sizes& z : kSizes) {
    const Values weights = whole_numbers({z.m, 1, 1, z.K}, 5);
    const Values x = whole_numbers({z.m, z.B, z.G, z.D}, 3);
    const Tensor host = put(Values({z.K, z.B, z.G, z.D}, 2), DType::kF32);
    const Tensor device = gpu_.put(take(host), DType::kF32, placement);
    kernels_.project(host, put(weights, dtype), put(x, dtype));
    gpu_.kernels().project(device, gpu_.put(weights, dtype, placement),
                           gpu_.put(x, dtype, placement));
    expect_bitwise(gpu_.take(device), take(host), "projected");
  }
}

TEST_P(EmulatedProjection, AddsBothGradients) {
  const auto [dtype, placement] = GetParam();
  for (const Sizes& z : kSizes) {
    const Values weights = whole_numbers({z.m, 1, 1, z.K}, 5);
    const Values x = whole_numbers({z.m, z.B, z.G, z.D}, 3);
    const Values d_projected = whole_numbers({z.K, z.B, z.G, z.D}, 4);
    const Tensor d_x = put(Values(x.shape, 2), DType::kF32);
    const Tensor d_weights = put(Values(weights.shape, 3), DType::kF32);
    const Tensor gpu_d_x = gpu_.put(take(d_x), DType::kF32, placement);
    const Tensor gpu_d_weights = gpu_.put(take(d_weights), DType::kF32, placement);
    kernels_.project_backward(d_x, d_weights, put(d_projected, DType::kF32), put(weights, dtype),
                              put(x, dtype));
    gpu_.kernels().project_backward(
        gpu_d_x, gpu_d_weights, gpu_.put(d_projected, DType::kF32, placement),
        gpu_.put(weights, dtype, placement), gpu_.put(x, dtype, placement));
    expect_bitwise(gpu_.take(gpu_d_x), take(d_x), "d_x");
    expect_bitwise(gpu_.take(gpu_d_weights), take(d_weights), "d_projection");
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, EmulatedProjection, every_type_and_placement(), name_of_case);

// The parts of a split sum are added in one order, whatever the order of blocks.
TEST_F(KernelsTest, SplitProjectionsRepeatTheirBits) {
  GpuFixture gpu;
  const Values weights = random({1300, 1, 1, 6}, DType::kF32);
  const Values x = random({1300, 1, 1, 11}, DType::kF32);
  Values first;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const Tensor sum = gpu.put(Values({6, 1, 1, 11}), DType::kF32);
    gpu.kernels().project(sum, gpu.put(weights, DType::kF32), gpu.put(x, DType::kF32));
    if (repeat == 0) first = gpu.take(sum);
    expect_bitwise(gpu.take(sum), first, "projected");
  }
}

}  // namespace
}  // namespace sp::test
