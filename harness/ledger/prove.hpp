// Proofs without rounding: an algorithm's own text, its real messages, and kernels that keep books.
//
// What a proof sees    any pair of query and key that is missing, doubled, hidden wrongly or brought
//                      to the wrong owner, whatever the length; a log-sum-exp or delta that is not
//                      complete; data that are not where a kernel is told they are.
// What it cannot see   a wrong formula inside a kernel: numbers are for that (verify.hpp).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "harness/ledger/books.hpp"
#include "harness/run/backend.hpp"
#include "optimized/algorithms/algorithm.hpp"

namespace sp::ledger {

// Runs one problem, forward and backward, and audits all that rank 0 gathers. Empty: every pair is
// where it belongs. Collective over the back-end, which must hold its tensors on the host.
std::string prove_one(Backend& backend, const Rig& rig, const Algorithm& algorithm,
                      const Books& books, const World& world);

struct ProofOptions {
  std::vector<const Algorithm*> algorithms;
  std::vector<int> ranks;   // each with every node size that divides it, for algorithms with a mesh
  std::int64_t rounds = 1;  // problems per world
  Rig rig{};                // faults of a test
};

struct Proof {
  const Algorithm* algorithm = nullptr;
  std::optional<Module> module;  // linear attention: a row for each that the algorithm serves
  std::int64_t runs = 0;
  std::int64_t pairs = 0;  // of query and key, in all runs: each forward and in every gradient
  std::string failure;     // problem, world and what is wrong; the algorithm stops there
  bool passed() const { return failure.empty() && runs > 0; }
};

// Of each world and round one problem: lengths below, at, around and far above the rank count, and
// every term of the mask, in turn. A world where an algorithm serves none of them is a failure.
// progress(done, total) counts rank counts, rounds and algorithms.
std::vector<Proof> prove(Backend& backend, const ProofOptions& options,
                         const std::function<void(std::int64_t, std::int64_t)>& progress = {});

}  // namespace sp::ledger
