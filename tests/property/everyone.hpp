// What all property tests share: every algorithm of the registry as a parameter, alone or with each
// module it serves, problems of its family, and small runs on threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "harness/generate/cases.hpp"
#include "harness/run/execute.hpp"
#include "harness/run/modules.hpp"
#include "optimized/algorithms/registry.hpp"
#include "tests/unit/reference_cases.hpp"

namespace sp {

inline void PrintTo(const Algorithm* algorithm, std::ostream* os) { *os << algorithm->id; }

}  // namespace sp

namespace sp::test {

class Everyone : public testing::TestWithParam<const Algorithm*> {};

inline std::string name_of(const Algorithm& algorithm) {
  std::string id = algorithm.id;
  std::replace(id.begin(), id.end(), '/', '_');
  return id;
}
inline std::string id_of(const testing::TestParamInfo<const Algorithm*>& info) {
  return name_of(*info.param);
}

inline bool of_softmax(const Algorithm* algorithm) { return algorithm->family == Family::kSoftmax; }

inline std::vector<const Algorithm*> softmax_algorithms() {
  std::vector<const Algorithm*> chosen;
  std::ranges::copy_if(algorithms(), std::back_inserter(chosen), of_softmax);
  return chosen;
}

// An algorithm, and of linear attention and stacks one of the modules that it serves.
struct Subject {
  const Algorithm* algorithm = nullptr;
  std::optional<Module> module{};
};

inline std::string name_of(const Subject& subject) {
  const std::string id = name_of(*subject.algorithm);
  return subject.module ? id + "_" + std::string(name_of(*subject.module)) : id;
}
inline void PrintTo(const Subject& subject, std::ostream* os) { *os << name_of(subject); }
inline std::string subject_of(const testing::TestParamInfo<Subject>& info) {
  return name_of(info.param);
}

// A problem of the subject's family: causal where states pass, a stack of three layers.
inline Problem problem_for(const Subject& subject, const Shape& shape) {
  const Family family = subject.algorithm->family;
  Problem problem;
  problem.shape = shape;
  problem.scale = default_scale(shape);
  if (family == Family::kProjectedSoftmax) problem.projected = 5;
  if (family != Family::kLinear && family != Family::kHybrid) return problem;
  const Module module = subject.module.value_or(Module::kBasic);
  problem.module = module;
  problem.mask.causal = true;
  if (is_normalised(module)) problem.scale = 1;
  problem.epsilon = default_epsilon(module);
  if (family == Family::kHybrid) {
    problem.layers = "LLN";
    problem.shape.E = shape.D;
  }
  return problem;
}

// The modules that an algorithm serves; {nothing} for those of softmax attention.
inline std::vector<std::optional<Module>> modules_of(const Algorithm& algorithm) {
  if (ask_modules(algorithm).empty()) return {std::nullopt};
  const std::vector<Module> served = modules_served(algorithm);
  return {served.begin(), served.end()};
}

// Found once: every test is a process, which asks for them before it knows whether it needs them.
inline const std::vector<Subject>& subjects() {
  static const std::vector<Subject> all = [] {
    std::vector<Subject> found;
    for (const Algorithm* algorithm : algorithms()) {
      for (const auto module : modules_of(*algorithm)) found.push_back({algorithm, module});
    }
    return found;
  }();
  return all;
}

template <class Which>
std::vector<Subject> subjects_where(Which&& which) {
  std::vector<Subject> chosen;
  std::ranges::copy_if(subjects(), std::back_inserter(chosen), which);
  return chosen;
}

class EachSubject : public testing::TestWithParam<Subject> {
 protected:
  static const Algorithm& algorithm() { return *GetParam().algorithm; }
};

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
