// Verification: random cases, an algorithm on a back-end, the verdict of the oracle, and a small
// failing case if there is one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "harness/compare/compare.hpp"
#include "harness/generate/cases.hpp"
#include "harness/run/execute.hpp"

namespace sp {

struct VerifyOptions {
  std::vector<const Algorithm*> algorithms;
  Pins pins;
  std::uint64_t seed = 1;
  std::uint64_t first_case = 0;
  std::int64_t cases = 100;  // per algorithm, not counting skipped ones
  bool backward = true;
  // One row per module of linear algorithms and stacks, each with its own cases; else modules are
  // drawn.
  bool per_module = false;
  Rig rig;
  int most_shrinks = 60;
  bool name_first_wrong = true;  // of a failure, where the back-end can be watched
  std::string repeat_flags;      // of the command that repeats a failure: back-end and pins
};

struct Failure {
  std::uint64_t index = 0;  // number of the case in its stream
  Case smallest;            // after shrinking
  std::string what;         // what is wrong and where, one line
  std::string
      first;  // the first kernel or message that was wrong; empty: none was, or nobody watched
  std::string message;  // problem, what, and the command that repeats it; several lines
};

struct AlgorithmReport {
  const Algorithm* algorithm = nullptr;
  std::optional<Module> module;  // of a row per module
  std::string refusal;           // why the algorithm never serves this module; empty: it does
  std::int64_t cases = 0;
  std::int64_t skipped = 0;
  std::string skip_reason;  // of the last skipped case
  TensorVerdict worst;      // highest error over limit of all passed cases
  double beyond = 0;        // how far limits were used up beyond the last rounding, at most
  std::string beyond_of;    // the tensor where
  std::optional<Failure> failure;
  bool passed() const { return !refusal.empty() || (!failure && cases > 0); }
};

// Stops an algorithm at its first failure. progress(done, total) is called now and then. Collective
// over the back-end.
std::vector<AlgorithmReport> verify(
    Backend& backend, const VerifyOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress = {});

// One case of one algorithm: an empty message if results, traffic, flops and memory are as they
// should be.
struct CaseReport {
  std::string message;
  Verdict verdict;
};
CaseReport check_case(Backend& backend, const Rig& rig, const Algorithm& algorithm,
                      const Case& drawn, bool backward = true);

}  // namespace sp
