// Errors in bf16 do not grow with the number of ranks where partial results stay in f32.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <iostream>

#include "reference/attention.hpp"
#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

constexpr HostTensor Outputs::* kTensors[] = {&Outputs::out, &Outputs::d_q, &Outputs::d_k,
                                              &Outputs::d_v};
constexpr const char* kNames[] = {"out", "d_q", "d_k", "d_v"};

struct Error {
  double rms = 0, worst = 0;
};

Error error_of(const HostTensor& result, const HostTensor& exact) {
  Error error;
  for (std::int64_t n = 0; n < result.size(); ++n) {
    const double off = std::fabs(result.at(n) - exact.at(n));
    error.rms += off * off;
    error.worst = std::max(error.worst, off);
  }
  error.rms = std::sqrt(error.rms / static_cast<double>(std::max<std::int64_t>(1, result.size())));
  return error;
}

struct Growth {
  double rms = 0, worst = 0;  // largest error at `ranks` over error at one rank, of any tensor
};

Growth growth(const Algorithm& algorithm, std::int64_t N, int ranks, std::uint64_t seeds) {
  Growth most;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    Problem problem;
    problem.shape = {1, N, 1, 1, 16, 16};
    problem = with_heads_for(algorithm, problem, {ranks, 1});
    problem.dtype = DType::kBF16;
    problem.mask.causal = seed % 2 == 1;
    if (algorithm.family == Family::kProjectedSoftmax) {
      problem.projected = 32;
      problem.mask = {};
    }
    problem.scale = default_scale(problem.shape);
    const Inputs inputs = make_inputs({problem, {ranks, 1}, Values::kNormal, seed});
    const Outputs exact = reference::attention(problem, inputs);
    const Outputs alone = run(algorithm, problem, inputs, {1, 1});
    const Outputs spread = run(algorithm, problem, inputs, {ranks, 1});
    for (std::size_t i = 0; i < std::size(kTensors); ++i) {
      const Error one = error_of(alone.*kTensors[i], exact.*kTensors[i]);
      const Error many = error_of(spread.*kTensors[i], exact.*kTensors[i]);
      most.rms = std::max(most.rms, many.rms / one.rms);
      most.worst = std::max(most.worst, many.worst / one.worst);
      std::cout << algorithm.id << " N=" << N << " P=" << ranks << " seed " << seed << " "
                << kNames[i] << ": rms " << one.rms << " -> " << many.rms << ", worst " << one.worst
                << " -> " << many.worst << '\n';
    }
  }
  return most;
}

class Carry : public Everyone {};

std::vector<const Algorithm*> rounding_once() {
  std::vector<const Algorithm*> chosen;
  std::ranges::copy_if(algorithms(), std::back_inserter(chosen),
                       [](const Algorithm* algorithm) { return algorithm->roundings == 1; });
  return chosen;
}

TEST_P(Carry, KeepsTheErrorOfSixteenRanksAtThatOfOne) {
  const Growth most = growth(*GetParam(), 192, 16, 4);
  std::cout << GetParam()->id << ": " << most.rms << " " << most.worst << '\n';
  EXPECT_LE(most.rms, 1.25);
}

TEST_P(Carry, KeepsTheErrorOfSixtyFourRanksAtThatOfOne) {
  const Growth most = growth(*GetParam(), 512, 64, 2);
  std::cout << GetParam()->id << ": " << most.rms << " " << most.worst << '\n';
  EXPECT_LE(most.rms, 1.25);
}

INSTANTIATE_TEST_SUITE_P(Registry, Carry, testing::ValuesIn(algorithms()), id_of);

}  // namespace
}  // namespace sp::test
