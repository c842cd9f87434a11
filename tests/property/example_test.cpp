// The template of optimized/README.md is a complete algorithm: it passes what the registry's pass.
// SPDX-License-Identifier: Apache-2.0
#include "harness/run/verify.hpp"
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

}  // namespace
}  // namespace sp::test
