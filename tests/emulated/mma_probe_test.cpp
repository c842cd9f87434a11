// How the tensor cores of this GPU multiply and add: what the kernels and their limits rely on, and what
// only the record needs. The first thing to ask a GPU.
// SPDX-License-Identifier: Apache-2.0
#include "optimized/kernels/cuda/mma_probe.hpp"

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "tests/emulated/gpu_fixture.hpp"

namespace sp::test {
namespace {

class TensorCore : public testing::TestWithParam<DType> {
 protected:
  // a [16, 16] b [16, 8] + c
  Values product(const Values& a, const Values& b, const Values& c) {
    const Tensor d = gpu_.poisoned(c.shape, DType::kF32);
    SP_GPU::mma_once(gpu_.gpu(), d, gpu_.put(a, GetParam()), gpu_.put(b, GetParam()),
                     gpu_.put(c, DType::kF32));
    return gpu_.take(d);
  }
  // c + sum of the terms, by the product's element (0, 0).
  double sum(double c, const std::vector<double>& terms) {
    Values a({16, 16, 1, 1}), b({16, 8, 1, 1}), start({16, 8, 1, 1}, c);
    for (std::size_t k = 0; k < terms.size(); ++k) {
      const int half = std::ilogb(terms[k] == 0 ? 1 : terms[k]) / 2;  // f16 has no small numbers
      a.data[k] = std::ldexp(1.0, half);
      b.data[8 * k] = terms[k] / a.data[k];
    }
    return product(a, b, start).data[0];
  }

  GpuFixture gpu_;
};

// Sums that are exact in every order; no exchange of operands, rows, columns or halves gives the same.
TEST_P(TensorCore, MultipliesIntegersExactly) {
  Values a({16, 16, 1, 1}), b({16, 8, 1, 1}), c({16, 8, 1, 1}), expected = c;
  for (std::size_t i = 0; i < a.data.size(); ++i) a.data[i] = static_cast<double>(i * 37 % 31) - 15;
  for (std::size_t i = 0; i < b.data.size(); ++i) b.data[i] = static_cast<double>(i * 23 % 29) - 14;
  for (std::size_t i = 0; i < c.data.size(); ++i) c.data[i] = static_cast<double>(i) * 64;
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 8; ++j) {
      expected.data[8 * i + j] = c.data[8 * i + j];
      for (std::size_t k = 0; k < 16; ++k)
        expected.data[8 * i + j] += a.data[16 * i + k] * b.data[8 * k + j];
    }
  }
  expect_bitwise(product(a, b, c), expected, "product");
}

// The limits of attention hold if an addend counts down to the last bit of the largest, 2^-23 of it.
TEST_P(TensorCore, KeepsAllBitsOfASum) {
  for (int k = 12; k <= 23; ++k) {
    const double small = std::ldexp(1.0, -k);
    EXPECT_EQ(sum(1, std::vector<double>(16, small)), 1 + 16 * small) << "2^-" << k;
    EXPECT_EQ(sum(0, {1, small, small, 0, 0, 0, 0, small}), 1 + 3 * small) << "2^-" << k;
  }
}

// Nothing hangs on these: they say which of the emulator's orders is this GPU's.
TEST_P(TensorCore, SaysHowItAdds) {
  int last = 23;  // 16 equal addends below the last bit of 1: down to which do they count?
  while (last < 40 && sum(1, std::vector<double>(16, std::ldexp(1.0, -last - 1))) > 1) ++last;
  // A large product among the first half of the products, small ones in the second; and the reverse.
  const double small = std::ldexp(1.0, -25), eight = 8 * small;
  std::vector<double> behind(16, 0.0), before(16, 0.0);
  behind[0] = before[15] = 1;
  for (std::size_t k = 0; k < 8; ++k) behind[8 + k] = before[k] = small;
  const auto arrives = [&](const std::vector<double>& terms) { return sum(0, terms) == 1 + eight; };
  const double up = 1 + std::ldexp(1.0, -23);  // halfway between 1 and it, and a little more
  const bool rounds = sum(1, {std::ldexp(1.0, -24), std::ldexp(1.0, -26)}) == up;
  const std::string said =
      fmt::format("addends count down to 2^-{} of the largest; halves of 8 are {}; {}", last,
                  arrives(behind) || arrives(before) ? "added on their own" : "not told apart",
                  rounds ? "sums are rounded up" : "sums are cut off or rounded one by one");
  RecordProperty("tensor_core", said);
  fmt::print("tensor cores, {}: {}\n", name_of(GetParam()), said);
}

INSTANTIATE_TEST_SUITE_P(Kernels, TensorCore, testing::Values(DType::kBF16, DType::kF16),
                         [](const auto& type) { return std::string(name_of(type.param)); });

}  // namespace
}  // namespace sp::test
