// Fill, copy, add, merge and delta of a GPU against those of the CPU.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <string>

#include "reference/problem/error.hpp"
#include "tests/emulated/gpu_fixture.hpp"
#ifdef SP_EMULATOR  // which the GPU's headers say
#include "harness/emulator/emulator.hpp"
#endif

namespace sp::test {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();
constexpr DType kStorage[] = {DType::kF32, DType::kBF16, DType::kF16};
constexpr Placement kPlacements[] = {Placement::kDense, Placement::kWindow};
// Empty, one element, around vectors of 16 bytes and around the threads of a block.
constexpr Tensor::Extents kShapes[] = {{0, 2, 3, 4},  {1, 1, 1, 1},   {5, 2, 3, 16}, {3, 1, 2, 63},
                                       {3, 2, 1, 64}, {65, 1, 3, 65}, {100, 2, 2, 1}};

class ElementwiseTest : public KernelsTest {
 protected:
  std::string name(DType to, DType from, const Tensor::Extents& shape) {
    return std::string(name_of(from)) + " to " + std::string(name_of(to)) + " in rows of " +
           std::to_string(shape[3]);
  }
  GpuFixture gpu_;
};

using GpuFill = ElementwiseTest;

TEST_F(GpuFill, WritesOneValueInEveryType) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64, DType::kI32}) {
    for (const Tensor::Extents& shape : kShapes) {
      for (const Placement placement : kPlacements) {
        const Tensor target = gpu_.poisoned(shape, dtype, placement);
        gpu_.kernels().fill(target, -3);
        expect_bitwise(gpu_.take(target), Values(shape, -3), name(dtype, dtype, shape));
      }
    }
  }
  const Tensor lse = gpu_.poisoned({5, 1, 1, 1}, DType::kF32);
  gpu_.kernels().fill(lse, kNothing);
  expect_bitwise(gpu_.take(lse), Values({5, 1, 1, 1}, kNothing), "lse");
}

using GpuCopy = ElementwiseTest;

TEST_F(GpuCopy, CastsLikeTheCpuOverAnyStrides) {
  for (const DType to : kStorage) {
    for (const DType from : kStorage) {
      for (const Tensor::Extents& shape : kShapes) {
        for (int placements = 0; placements < 4; ++placements) {
          const Values source = random(shape, DType::kF32, 300);
          const Tensor expected = poisoned(shape, to);
          kernels_.copy(expected, put(source, from));
          const Tensor target = gpu_.poisoned(shape, to, kPlacements[placements / 2]);
          gpu_.kernels().copy(target, gpu_.put(source, from, kPlacements[placements % 2]));
          expect_bitwise(gpu_.take(target), sp::test::take(expected), name(to, from, shape));
        }
      }
    }
  }
}

TEST_F(GpuCopy, MovesBitsOfTypesWithoutArithmetic) {
  Values ids({7, 3, 1, 5});
  for (std::size_t i = 0; i < ids.data.size(); ++i) ids.data[i] = 16777217.0 + double(i);
  for (const DType dtype : {DType::kI32, DType::kF64}) {
    const Tensor target = gpu_.poisoned(ids.shape, dtype, Placement::kWindow);
    gpu_.kernels().copy(target, gpu_.put(ids, dtype));
    expect_bitwise(gpu_.take(target), ids, "ids");
  }
  const Tensor f32 = gpu_.poisoned(ids.shape, DType::kF32);
  EXPECT_THROW(gpu_.kernels().copy(f32, gpu_.put(ids, DType::kI32)), Error);
  EXPECT_THROW(gpu_.kernels().copy(f32, gpu_.put(ids, DType::kF64)), Error);
}

// Heads and tokens regrouped, as all-to-all messages do it: rows stay whole, outer axes are strided.
TEST_F(GpuCopy, RegroupsHeads) {
  const Values all = random({9, 2, 8, 24}, DType::kBF16);
  const Tensor source = gpu_.put(all, DType::kBF16);
  const Tensor packed = gpu_.poisoned({9, 2, 4, 24}, DType::kBF16);
  for (const std::int64_t first : {0, 4}) {
    gpu_.kernels().copy(packed, source.slice(2, first, first + 4));
    const Values part = gpu_.take(packed);
    for (std::int64_t flat = 0; flat < 9 * 2 * 4; ++flat) {
      const std::int64_t i = flat / 8, b = flat / 4 % 2, h = flat % 4;
      for (std::int64_t d = 0; d < 24; ++d) {
        ASSERT_EQ(part.at(i, b, h, d), all.at(i, b, h + first, d));
      }
    }
  }
}

#ifdef SP_EMULATOR
// One request and 16 sectors for 128 elements, on either side.
TEST_F(GpuCopy, OfWholeTensorsMoves16BytesPerLane) {
  const Values values = random({64, 2, 4, 64}, DType::kF32);
  const Tensor source = gpu_.put(values, DType::kF32);
  const Tensor target = gpu_.poisoned(values.shape, DType::kF32);
  emulator::take_counts();
  emulator::count_accesses(true);
  gpu_.kernels().copy(target, source);
  gpu_.gpu().synchronize();
  emulator::count_accesses(false);
  const auto warps = static_cast<std::int64_t>(values.data.size()) / 4 / 32;
  const std::vector<emulator::KernelCounts> counts = emulator::take_counts();
  ASSERT_EQ(counts.size(), 1u);
  EXPECT_EQ(counts[0].global_requests, 2 * warps);
  EXPECT_EQ(counts[0].global_sectors, 2 * warps * 16);
}
#endif

using GpuAdd = ElementwiseTest;

TEST_F(GpuAdd, AddsEveryStorageTypeLikeTheCpu) {
  for (const DType from : kStorage) {
    for (const Tensor::Extents& shape : kShapes) {
      for (int placements = 0; placements < 4; ++placements) {
        const Values target = random(shape, DType::kF32), source = random(shape, from);
        const Tensor expected = put(target, DType::kF32);
        kernels_.add(expected, put(source, from));
        const Tensor sum = gpu_.put(target, DType::kF32, kPlacements[placements / 2]);
        gpu_.kernels().add(sum, gpu_.put(source, from, kPlacements[placements % 2]));
        expect_bitwise(gpu_.take(sum), sp::test::take(expected), name(DType::kF32, from, shape));
      }
    }
  }
}

TEST_F(GpuAdd, OfATensorToItselfDoublesIt) {
  const Values values = random({70, 1, 2, 33}, DType::kF32);
  const Tensor x = gpu_.put(values, DType::kF32);
  gpu_.kernels().add(x, x);
  Values doubled = values;
  for (double& value : doubled.data) value *= 2;
  expect_bitwise(gpu_.take(x), doubled, "doubled");
}

class GpuMerge : public ElementwiseTest {
 protected:
  struct Both {
    Values out, lse;
  };

  Both draw(std::int64_t width, DType dtype = DType::kF32) {
    return {random({70, 2, 3, width}, dtype), random({70, 2, 3, 1}, DType::kF32, 3)};
  }
  static Both nothing(std::int64_t width, double out = 0) {
    return {Values({70, 2, 3, width}, out), Values({70, 2, 3, 1}, kNothing)};
  }
  Both merged(const Both& into, const Both& from, DType from_type = DType::kF32,
              Placement placement = Placement::kDense) {
    const Partial target{gpu_.put(into.out, DType::kF32, placement),
                         gpu_.put(into.lse, DType::kF32, placement)};
    gpu_.kernels().merge(target, {gpu_.put(from.out, from_type, placement),
                                  gpu_.put(from.lse, DType::kF32, placement)});
    return {gpu_.take(target.out), gpu_.take(target.lse)};
  }
  static void expect_same(const Both& actual, const Both& expected, double limit) {
    expect_within(actual.out, expected.out, limit, "out");
    expect_within(actual.lse, expected.lse, limit, "lse");
  }
};

TEST_F(GpuMerge, AgreesWithTheCpu) {
  for (const std::int64_t width : {0, 1, 9, 32, 33, 64, 100, 200}) {
    for (const DType from_type : kStorage) {
      for (const Placement placement : kPlacements) {
        Both into = draw(width), from = draw(width, from_type);
        for (std::size_t row = 0; row < into.lse.data.size(); row += 5) {  // also empty sides
          (row % 2 == 0 ? into : from).lse.data[row] = kNothing;
        }
        const Partial expected{put(into.out, DType::kF32), put(into.lse, DType::kF32)};
        kernels_.merge(expected, {put(from.out, from_type), put(from.lse, DType::kF32)});
        // Two exponentials, a logarithm and five roundings on either side.
        expect_same(merged(into, from, from_type, placement),
                    {sp::test::take(expected.out), sp::test::take(expected.lse)}, 32 * 0x1p-24);
      }
    }
  }
}

TEST_F(GpuMerge, WithTheIdentityLeavesTheOtherSideBitForBit) {
  for (const std::int64_t width : {7, 64}) {
    const Both some = draw(width);
    const Both negative_zeros{Values(some.out.shape, -0.0), Values(some.lse.shape, 1)};
    const Both unseen = nothing(width, std::numeric_limits<double>::quiet_NaN());
    expect_same(merged(some, unseen), some, 0);
    expect_same(merged(unseen, some), some, 0);
    expect_same(merged(nothing(width), nothing(width)), nothing(width), 0);
    for (const Both& kept : {merged(negative_zeros, unseen), merged(unseen, negative_zeros)}) {
      for (const double value : kept.out.data) EXPECT_TRUE(std::signbit(value));
    }
  }
}

TEST_F(GpuMerge, OfVeryDifferentRowsTakesTheHeavierOneExactly) {
  Both light = draw(40), heavy = draw(40);
  for (double& value : light.lse.data) value = -1e4;
  for (double& value : heavy.lse.data) value = 1e4;
  expect_same(merged(light, heavy), heavy, 0);
  expect_same(merged(heavy, light), heavy, 0);
}

using GpuDelta = ElementwiseTest;

TEST_F(GpuDelta, IsTheRowwiseProductOfOutAndItsGradient) {
  for (const std::int64_t width : {0, 1, 33, 64, 100, 130}) {
    for (const DType left : kStorage) {
      for (const DType right : kStorage) {
        for (const Placement placement : kPlacements) {
          const Values d_out = random({70, 2, 3, width}, left);
          const Values out = random({70, 2, 3, width}, right);
          const Tensor delta = gpu_.poisoned({70, 2, 3, 1}, DType::kF32, placement);
          gpu_.kernels().attention_delta(delta, gpu_.put(d_out, left, placement),
                                         gpu_.put(out, right, placement));
          Values expected({70, 2, 3, 1});
          for (std::size_t i = 0; i < out.data.size(); ++i) {
            expected.data[i / static_cast<std::size_t>(width)] += out.data[i] * d_out.data[i];
          }
          expect_within(gpu_.take(delta), expected, double(width * width) * 0x1p-24, "delta");
        }
      }
    }
  }
}

}  // namespace
}  // namespace sp::test
