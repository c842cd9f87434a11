// SPDX-License-Identifier: Apache-2.0
#include "harness/run/modules.hpp"

#include "reference/problem/error.hpp"

namespace sp {
namespace {

bool is_valid(const Problem& problem) {
  try {
    validate(problem);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

std::vector<ModuleAnswer> ask_modules(const Algorithm& algorithm) {
  std::vector<ModuleAnswer> answers;
  const bool stack = algorithm.family == Family::kHybrid;
  if (algorithm.family != Family::kLinear && !stack) return answers;
  Problem problem;
  problem.shape = {.B = 1, .N = 64, .H = 4, .G = 4, .D = 8, .E = 8};
  problem.mask.causal = true;
  if (stack) problem.layers = "LN";
  for (const Module module : kModules) {
    problem.module = module;
    problem.epsilon = default_epsilon(module);
    if (!is_valid(problem)) continue;
    const Support support = algorithm.supports(problem, {4});
    answers.push_back({module, support ? "" : support.error().reason});
  }
  return answers;
}

std::vector<Module> modules_served(const Algorithm& algorithm) {
  std::vector<Module> served;
  for (const ModuleAnswer& answer : ask_modules(algorithm)) {
    if (answer.refusal.empty()) served.push_back(answer.module);
  }
  return served;
}

}  // namespace sp
