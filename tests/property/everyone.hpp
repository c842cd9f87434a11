// What all property tests share: every algorithm of the registry as a parameter, and small runs on
// threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "harness/generate/cases.hpp"
#include "harness/run/execute.hpp"
#include "optimized/algorithms/registry.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp {

inline void PrintTo(const Algorithm* algorithm, std::ostream* os) { *os << algorithm->id; }

}  // namespace sp

namespace sp::test {

class Everyone : public testing::TestWithParam<const Algorithm*> {};

inline std::string id_of(const testing::TestParamInfo<const Algorithm*>& info) {
  std::string id = info.param->id;
  std::replace(id.begin(), id.end(), '/', '_');
  return id;
}

inline bool of_softmax(const Algorithm* algorithm) { return algorithm->family == Family::kSoftmax; }

inline std::vector<const Algorithm*> softmax_algorithms() {
  std::vector<const Algorithm*> chosen;
  std::ranges::copy_if(algorithms(), std::back_inserter(chosen), of_softmax);
  return chosen;
}

// One back-end for all tests of the process: it starts and ends its threads at every run.
inline Backend& threads() {
  static const std::unique_ptr<Backend> backend = make_thread_backend();
  return *backend;
}

inline Outputs run(const Algorithm& algorithm, const Problem& problem, const Inputs& inputs,
                   const World& world, const Rig& rig = {}) {
  return execute(threads(), rig, algorithm, problem, inputs, world).outputs;
}

// The same problem with as many more heads as the algorithm needs on this world.
inline Problem with_heads_for(const Algorithm& algorithm, Problem problem, const World& world) {
  if (!algorithm.supports(problem, world)) {
    problem.shape.H *= world.size;
    problem.shape.G *= world.size;
  }
  return problem;
}

// Case number `index` of a stream: the draws of `seqpar verify`.
inline sp::Case drawn_case(const Pins& pins, Family family, std::uint64_t seed,
                           std::uint64_t index) {
  sp::Case drawn;
  find_failure(pins, family, seed, index, 0, [&](const sp::Case& each) {
    drawn = each;
    return false;
  });
  return drawn;
}

}  // namespace sp::test
