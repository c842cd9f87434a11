// Every algorithm as GPU kernels and NCCL calls, executed by the emulator: the same random problems
// and the same verdict as on the other back-ends, on every rank count that fits a node.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "harness/emulator/emulator.hpp"
#include "harness/run/gpu_backend.hpp"
#include "harness/run/verify.hpp"
#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

Backend& emulated_gpus() {
  static const auto backend = emulated::make_backend(std::chrono::seconds(60));
  return *backend;
}
Backend& gpus_that_copy() {
  static const auto backend = emulated::make_backend(std::chrono::seconds(60), Transport::kLocal);
  return *backend;
}

// Of each algorithm and element type; linear attention: of each module.
#ifdef SP_SANITIZED
constexpr std::int64_t kCases = 3, kCasesPerModule = 1, kLongest = 200;
#else
constexpr std::int64_t kCases = 6, kCasesPerModule = 2, kLongest = 700;
#endif

struct Run {
  const Algorithm* algorithm;
  DType dtype;
};
void PrintTo(const Run& run, std::ostream* os) {
  *os << run.algorithm->id << " " << name_of(run.dtype);
}

class EmulatedEquivalence : public testing::TestWithParam<Run> {};

void expect_verified(Backend& backend, const Algorithm* algorithm, std::optional<DType> dtype) {
  VerifyOptions options;
  options.algorithms = {algorithm};
  options.pins.ranks = {1, 2, 3, 4, 5, 6};
  options.pins.most_heads =
      6;  // a multiple of any number of ranks, and groups; the grid has the rest
  options.pins.dtype = dtype;
  options.seed = 5;
  options.per_module = modules_of(*algorithm).front().has_value();
  options.cases = options.per_module ? kCasesPerModule : kCases;
  options.most_shrinks = 10;
  for (const AlgorithmReport& report : verify(backend, options)) {
    if (!report.refusal.empty()) continue;
    EXPECT_FALSE(report.failure) << report.failure->message;
    EXPECT_EQ(report.cases, options.cases) << report.skip_reason;
  }
}

TEST_P(EmulatedEquivalence, HoldsOnRandomProblems) {
  expect_verified(emulated_gpus(), GetParam().algorithm, GetParam().dtype);
}

std::vector<Run> runs() {
  std::vector<Run> all;
  for (const Algorithm* algorithm : algorithms()) {
    for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF16})
      all.push_back({algorithm, dtype});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Registry, EmulatedEquivalence, testing::ValuesIn(runs()),
                         [](const testing::TestParamInfo<Run>& run) {
                           return name_of(*run.param.algorithm) + "_" +
                                  std::string(name_of(run.param.dtype));
                         });

class LocalEquivalence : public Everyone {};

TEST_P(LocalEquivalence, HoldsOnRandomProblems) {
  expect_verified(gpus_that_copy(), GetParam(), {});
}

INSTANTIATE_TEST_SUITE_P(Registry, LocalEquivalence, testing::ValuesIn(algorithms()), id_of);

// Tensor cores add in orders, and cut off digits, that no document fixes: the limits hold for all that
// the emulator has, on short problems of every kind and on a longer one.
TEST(EmulatedTensorCores, EveryOrderOfSumsIsWithinTheLimits) {
  constexpr std::uint64_t kOrders = 6;
  for (std::uint64_t order = 0; order < kOrders; ++order) {
    emulator::configure({.seed = order});
    const auto backend = emulated::make_backend(std::chrono::seconds(60), Transport::kNccl);
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      for (const bool longer : {false, true}) {
        VerifyOptions options;
        options.algorithms = {find_algorithm("ring/zigzag")};
        options.pins.dtype = dtype;
        options.pins.ranks = {longer ? 1 : 2};
        options.pins.most_heads = 2;
        options.seed = 6;
        options.cases = longer ? 1 : 8;
        if (longer) {
          options.pins.tokens = kLongest;
          options.pins.head_size = 64;
          options.pins.heads = options.pins.kv_heads = options.pins.batch = 1;
          options.pins.causal = options.pins.segments = false;
          options.pins.window = 0;
          options.pins.values = Values::kNormal;
        }
        const AlgorithmReport report = verify(*backend, options).front();
        EXPECT_FALSE(report.failure) << "order " << order << ": " << report.failure->message;
        fmt::print("order {} {} {}: at most {:.3f} of a limit, {:.3f} beyond the last rounding\n",
                   order, name_of(dtype), longer ? "long" : "short", report.worst.highest().ratio,
                   report.beyond);
      }
    }
  }
  emulator::configure({});
}

}  // namespace
}  // namespace sp::test
