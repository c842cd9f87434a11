// Hunts every mutant with the same check as `seqpar verify`; one line each, a survivor fails.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <string_view>

#include "harness/mutants/mutants.hpp"

int main(int argc, char** argv) {
  constexpr std::int64_t kMostCases = 400;
  constexpr std::uint64_t kSeed = 20;
  const std::string_view only = argc > 1 ? argv[1] : "";
  int mutants = 0, killed_mutants = 0;
  for (const sp::Mutant& mutant : sp::all_mutants()) {
    if (!only.empty() && only != mutant.id) continue;
    ++mutants;
    bool killed = true;
    for (const sp::MutantVerdict& verdict : sp::hunt(mutant, kMostCases, kSeed)) {
      killed = killed && verdict.killed;
      fmt::print("{:<30} {:<26} {:<8} case {:>3}  {}\n    first: {}\n", mutant.id,
                 verdict.algorithm, verdict.killed ? "killed" : "SURVIVED", verdict.cases,
                 verdict.how.substr(0, 160), verdict.first.empty() ? "-" : verdict.first);
    }
    killed_mutants += killed ? 1 : 0;
    std::fflush(stdout);
  }
  fmt::print("mutants: {} killed of {}\n", killed_mutants, mutants);
  return mutants > 0 && killed_mutants == mutants ? 0 : 1;
}
