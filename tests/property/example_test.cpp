// The template of optimized/README.md is a complete algorithm: it passes what the registry's pass.
// SPDX-License-Identifier: Apache-2.0
#include "harness/run/verify.hpp"
#include "optimized/kernels/kernels_decorator.hpp"
#include "tests/property/everyone.hpp"
#include "tests/support/example_ring.hpp"

namespace sp::test {
namespace {

TEST(ExampleAlgorithm, PassesTheSuite) {
  VerifyOptions options;
  options.algorithms = {&kExampleRing};
  options.cases = 60;
  options.rig.checked = true;
  options.rig.fence = Fence::kPoisonAndCanary;
  const AlgorithmReport report = verify(threads(), options).front();
  EXPECT_FALSE(report.failure) << report.failure->message;
  EXPECT_EQ(report.cases, options.cases);
}

// What its author reads when a number is wrong: the smallest problem, how to repeat it, what to try next.
TEST(ExampleAlgorithm, IsToldWhatIsWrong) {
  class Wrong final : public KernelsDecorator {
   public:
    using KernelsDecorator::KernelsDecorator;

   protected:
    void do_merge(const Partial& into, const Partial&) override {
      if (into.out.elements() > 0) into.out.as<float>()[0] = 7;
    }
  };
  VerifyOptions options;
  options.algorithms = {&kExampleRing};
  options.pins.dtype = DType::kF32;
  options.pins.longest = 0;
  options.name_first_wrong = false;
  options.rig.wrap_kernels = [](Kernels& inner, Memory&) { return std::make_unique<Wrong>(inner); };
  options.repeat_flags = " --dtype f32";
  for (const bool checked : {false, true}) {
    options.rig.checked = checked;
    const AlgorithmReport report = verify(threads(), options).front();
    ASSERT_TRUE(report.failure);
    const std::string& said = report.failure->message;
    EXPECT_NE(said.find("problem  P=1 B=1 N=1 H=1 G=1 D=1 E=1 f32"), std::string::npos) << said;
    EXPECT_NE(said.find("--seed 1 --case "), std::string::npos) << said;
    EXPECT_EQ(said.find("or with  --checked") == std::string::npos, checked) << said;
  }
}

}  // namespace
}  // namespace sp::test
