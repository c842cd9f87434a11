// Fill, copy, add, delta, and the decorator that forwards them.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <string>

#include "kernels_cases.hpp"
#include "optimized/kernels/kernels_decorator.hpp"
#include "reference/problem/error.hpp"

namespace sp::test {
namespace {

constexpr Tensor::Extents kShape{5, 2, 3, 17};
constexpr DType kFloats[] = {DType::kF32, DType::kBF16, DType::kF16, DType::kF64};
constexpr Placement kPlacements[] = {Placement::kDense, Placement::kWindow};

Values rounded(Values values, DType dtype) {
  for (double& value : values.data) {
    visit_dtype(dtype, [&]<class T>() { value = static_cast<double>(widen(narrow<T>(value))); });
  }
  return values;
}

using Copy = KernelsTest;

TEST_F(Copy, CastsBetweenAllStorageTypesOverAnyStrides) {
  for (const DType to : kFloats) {
    for (const DType from : kFloats) {
      for (const Placement target_placement : kPlacements) {
        for (const Placement source_placement : kPlacements) {
          const Values source = random(kShape, from);
          const Tensor target = poisoned(kShape, to, target_placement);
          kernels_.copy(target, put(source, from, source_placement));
          expect_bitwise(take(target), rounded(source, to),
                         std::string(name_of(from)) + " to " + std::string(name_of(to)));
        }
      }
    }
  }
}

TEST_F(Copy, MovesIntegersToIntegersOnly) {
  Values ids(kShape);
  for (std::size_t i = 0; i < ids.data.size(); ++i) ids.data[i] = 16777217.0 + double(i);
  const Tensor target = poisoned(kShape, DType::kI32, Placement::kWindow);
  kernels_.copy(target, put(ids, DType::kI32));
  expect_bitwise(take(target), ids, "ids");
  EXPECT_THROW(kernels_.copy(poisoned(kShape, DType::kF32), target), Error);
  EXPECT_THROW(kernels_.copy(target, poisoned(kShape, DType::kF32)), Error);
}

TEST_F(Copy, LeavesWhatLiesAroundAWindowAlone) {
  const Tensor around = put(Values({6, 2, 3, 20}, 7), DType::kF32);
  kernels_.copy(around.rows(1, 6).slice(3, 2, 19), put(Values(kShape, 1), DType::kF32));
  const Values after = take(around);
  for (std::int64_t flat = 0; flat < 6 * 2 * 3 * 20; ++flat) {
    const std::int64_t i = flat / 120, d = flat % 20;
    EXPECT_EQ(after.data[static_cast<std::size_t>(flat)], i >= 1 && d >= 2 && d < 19 ? 1 : 7);
  }
}

TEST_F(Copy, OfNothingDoesNothing) {
  for (const DType dtype : kFloats) {
    kernels_.copy(poisoned({0, 2, 3, 4}, dtype), poisoned({0, 2, 3, 4}, dtype));
    kernels_.fill(poisoned({3, 0, 3, 4}, dtype), 1);
  }
}

using Fill = KernelsTest;

TEST_F(Fill, WritesOneValueInEveryType) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF64, DType::kI32}) {
    for (const Placement placement : kPlacements) {
      const Tensor target = poisoned(kShape, dtype, placement);
      kernels_.fill(target, -3);
      expect_bitwise(take(target), Values(kShape, -3), "filled");
    }
  }
}

using Add = KernelsTest;

TEST_F(Add, AddsAnyFloatingPointTypeInTheTypeOfTheTarget) {
  for (const DType to : {DType::kF32, DType::kF64}) {
    for (const DType from : kFloats) {
      for (const Placement placement : kPlacements) {
        const Values target = random(kShape, to), source = random(kShape, from);
        const Tensor sum = put(target, to, placement);
        kernels_.add(sum, put(source, from));
        const Values wide = rounded(source, to);
        Values expected = target;
        for (std::size_t i = 0; i < wide.data.size(); ++i) expected.data[i] += wide.data[i];
        expect_bitwise(take(sum), rounded(expected, to), "sum");
      }
    }
  }
}

TEST_F(Add, RefusesIntegersAndStorageTypesAsTargets) {
  const Tensor f32 = put(Values(kShape), DType::kF32);
  EXPECT_THROW(kernels_.add(f32, put(Values(kShape), DType::kI32)), Error);
  EXPECT_THROW(kernels_.add(put(Values(kShape), DType::kBF16), f32), Error);
}

using Delta = KernelsTest;

TEST_F(Delta, IsTheRowwiseProductOfOutAndItsGradient) {
  for (const DType dtype : kFloats) {
    for (const Placement placement : kPlacements) {
      const DType accumulator = accumulator_of(dtype);
      const Values d_out = random({70, 2, 3, 33}, dtype), out = random({70, 2, 3, 33}, dtype);
      const Tensor delta = poisoned({70, 2, 3, 1}, accumulator, placement);
      kernels_.attention_delta(delta, put(d_out, dtype, placement), put(out, dtype, placement));
      Values expected({70, 2, 3, 1});
      for (std::size_t i = 0; i < out.data.size(); ++i) {
        expected.data[i / 33] += out.data[i] * d_out.data[i];
      }
      expect_within(take(delta), expected, 33 * 33 * unit_roundoff(accumulator), "delta");
    }
  }
}

class DoublingFill final : public KernelsDecorator {
 public:
  using KernelsDecorator::KernelsDecorator;

 protected:
  void do_fill(const Tensor& target, double value) override {
    KernelsDecorator::do_fill(target, 2 * value);
  }
};

using Decorator = KernelsTest;

TEST_F(Decorator, ForwardsWhatItDoesNotOverrideAndIsChargedAlone) {
  DoublingFill doubling(kernels_);
  const Tensor target = poisoned({4, 1, 1, 8}, DType::kF32);
  doubling.fill(target, 4);
  expect_bitwise(take(target), Values({4, 1, 1, 8}, 8), "filled");
  doubling.add(target, target);
  expect_bitwise(take(target), Values({4, 1, 1, 8}, 16), "added");

  const MaskTerms mask{};
  const Partial result{poisoned({4, 1, 1, 8}, DType::kF32), poisoned({4, 1, 1, 1}, DType::kF32)};
  doubling.attention({target, target, target, run(0, 4), run(0, 4), mask, 1}, result);
  expect_bitwise(take(result.out), Values({4, 1, 1, 8}, 16), "out");
  EXPECT_EQ(doubling.flops(), attention_flops(16, 1, 1, 8, 8));
  EXPECT_EQ(kernels_.flops(), 0);
}

}  // namespace
}  // namespace sp::test
