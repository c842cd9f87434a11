// Mutants: algorithms broken on purpose, so that the checks prove that they would see it.
//
// A mutant is a fault between an unchanged algorithm and its kernels or its communicator: there
// stays one algorithm text. Each is a bug that somebody made or nearly made; the historic ones name
// their origin. The suite must fail for every algorithm that a mutant names; a survivor is a hole
// in the checks.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "harness/generate/cases.hpp"
#include "harness/run/backend.hpp"

namespace sp {

struct Mutant {
  const char* id;
  const char* what;                     // the fault, one phrase
  const char* origin;                   // where it happened, or "classic"
  std::vector<const char*> algorithms;  // each must be found out
  // One of the two.
  std::function<std::unique_ptr<Kernels>(Kernels&, Memory&)> kernels;
  std::function<std::unique_ptr<Communicator>(Communicator&)> communicator;
  Pins pins{};  // of the cases that it is hunted on, where few random ones would do
};
// The same, hunted on problems of one module.
Mutant with_module(Module module, Mutant mutant);

std::vector<Mutant> kernel_mutants();
std::vector<Mutant> mask_mutants();
std::vector<Mutant> message_mutants();
std::vector<Mutant> field_mutants();
std::vector<Mutant> linear_mutants();
std::vector<Mutant> linear_state_mutants();
std::vector<Mutant> linear_gradient_mutants();
std::vector<Mutant> linear_message_mutants();
std::vector<Mutant> all_mutants();

struct MutantVerdict {
  std::string algorithm;
  bool killed = false;
  std::int64_t cases = 0;  // until it was found out
  std::string how;         // the failure's first line
  std::string first;       // the first kernel or message that was wrong, of hunts that are watched
};
// Runs the same check as `seqpar verify` on up to `most_cases` random problems: on threads, with all
// that the rig can find; or on any back-end that survives failures.
std::vector<MutantVerdict> hunt(Backend& backend, const Rig& rig, const Mutant& mutant,
                                std::int64_t most_cases, std::uint64_t seed, bool watched = false);
std::vector<MutantVerdict> hunt(const Mutant& mutant, std::int64_t most_cases, std::uint64_t seed);

}  // namespace sp
