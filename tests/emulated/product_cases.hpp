// What the tests of products on the emulated GPU share: operands whose sums are exact in every order
// and every type, so that results equal the CPU's bit for bit.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <tuple>

#include "tests/emulated/gpu_fixture.hpp"

namespace sp::test {

// Small integers.
inline Values whole_numbers(Tensor::Extents shape, std::int64_t step) {
  Values values(shape);
  for (std::size_t i = 0; i < values.data.size(); ++i) {
    values.data[i] = static_cast<double>(static_cast<std::int64_t>(i) * step % 7 - 3);
  }
  return values;
}

using TypeAndPlacement = std::tuple<DType, Placement>;

inline auto every_type_and_placement() {
  return ::testing::Combine(::testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                            ::testing::Values(Placement::kDense, Placement::kWindow));
}

inline std::string name_of_case(const ::testing::TestParamInfo<TypeAndPlacement>& tested) {
  const bool dense = std::get<Placement>(tested.param) == Placement::kDense;
  return std::string(name_of(std::get<DType>(tested.param))) + (dense ? "_dense" : "_window");
}

// A CPU and a GPU.
class ProductTest : public KernelsTest, public ::testing::WithParamInterface<TypeAndPlacement> {
 protected:
  GpuFixture gpu_;
};

}  // namespace sp::test
