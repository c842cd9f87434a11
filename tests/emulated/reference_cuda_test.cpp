// The reference in CUDA against the reference on the CPU: another source, the same definition.
//
// Differences are counted in unit roundoffs of the arithmetic, each tensor relative to its natural
// scale. Both sides round every sum of N, D or E terms (at most 24, 9, 9 here) a few times.
// SPDX-License-Identifier: Apache-2.0
#include "reference/cuda/reference_cuda.hpp"

#include <gtest/gtest.h>

#include "harness/emulator/emulator.hpp"
#include "reference/attention.hpp"
#include "reference/linear_attention.hpp"
#include "tests/unit/reference_cases.hpp"
#include "tests/unit/reference_linear_cases.hpp"

namespace sp::test {
namespace {

constexpr double kLimit = 4 * (24 + 9 + 9);
// Divided by the condition of its denominators; the limit of the CPU's own two sources, 1e-12 in f64.
constexpr double kRebasedLimit = 9000;

// Largest difference over all tensors, in units.
double error_in_units(const Outputs& result, const Outputs& truth, DType arithmetic) {
  EXPECT_EQ(result.out.dtype(), arithmetic);
  return relative_difference(result, truth) / unit_roundoff(arithmetic);
}

class ReferenceCuda : public ::testing::TestWithParam<DType> {
 protected:
  void TearDown() override {
    const emulator::FaultReport fault = emulator::take_fault();
    EXPECT_FALSE(fault.found) << fault.what;
  }
};
INSTANTIATE_TEST_SUITE_P(, ReferenceCuda, ::testing::Values(DType::kF64, DType::kF32),
                         [](const auto& tested) { return std::string(name_of(tested.param)); });

// Inputs that f32 holds exactly, so that f32 and f64 start from the same numbers.
TEST_P(ReferenceCuda, SoftmaxAttentionIsTheSame) {
  double worst = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Case c = any_case(seed, seed % 3 == 0 ? DType::kBF16 : DType::kF32);
    const double error =
        error_in_units(SP_GPU::reference::attention(c.problem, c.inputs, GetParam()),
                       reference::attention(c.problem, c.inputs), GetParam());
    EXPECT_LE(error, kLimit) << name(c, seed);
    worst = std::max(worst, error);
  }
  RecordProperty("worst_error_in_units", std::to_string(worst));
}

TEST_P(ReferenceCuda, LinearAttentionIsTheSameForEveryModule) {
  for (const Module module : kModules) {
    double worst = 0;
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      const Case c = linear_case(seed, module, DType::kF32);
      const double error =
          error_in_units(SP_GPU::reference::linear_attention(c.problem, c.inputs, GetParam()),
                         reference::linear_attention(c.problem, c.inputs), GetParam()) /
          conditioning(c);
      EXPECT_LE(error, module == Module::kRebased ? kRebasedLimit : kLimit) << name(c, seed);
      worst = std::max(worst, error);
    }
    RecordProperty(std::string(name_of(module)) + "_error_in_units", std::to_string(worst));
  }
}

// Values by hand: two tokens, the second sees both.
TEST_P(ReferenceCuda, KnowsTheSimplestCausalProblem) {
  Problem problem;
  problem.shape = {1, 2, 1, 1, 1, 1};
  problem.mask.causal = true;
  Inputs inputs;
  inputs.q = HostTensor::from_doubles(DType::kF32, {1, 2, 1, 1}, std::vector<double>{5, 0});
  inputs.k = HostTensor::from_doubles(DType::kF32, {1, 2, 1, 1}, std::vector<double>{3, 7});
  inputs.v = HostTensor::from_doubles(DType::kF32, {1, 2, 1, 1}, std::vector<double>{2, 4});
  const Outputs result = SP_GPU::reference::attention(problem, inputs, GetParam());
  EXPECT_EQ(result.out.at(0), 2);
  EXPECT_EQ(result.out.at(1), 3);
  EXPECT_EQ(result.lse.at(0), 15);
  EXPECT_NEAR(result.lse.at(1), std::log(2.0), 1e-7);
  EXPECT_TRUE(result.d_q.absent());
}

TEST_P(ReferenceCuda, TakesEmptyProblems) {
  for (const Shape shape : {Shape{0, 3, 2, 1, 4, 5}, Shape{2, 0, 2, 1, 4, 5}}) {
    Draw draw(7);
    Problem problem;
    problem.shape = shape;
    problem.scale = 0.5;
    Inputs inputs = draw.inputs(problem);
    EXPECT_EQ(relative_difference(SP_GPU::reference::attention(problem, inputs, GetParam()),
                                  reference::attention(problem, inputs)),
              0);
    problem.module = Module::kBasic;
    EXPECT_EQ(relative_difference(SP_GPU::reference::linear_attention(problem, inputs, GetParam()),
                                  reference::linear_attention(problem, inputs)),
              0);
  }
}

}  // namespace
}  // namespace sp::test
