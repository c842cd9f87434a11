// Every algorithm keeps its books in order; and faults that numbers see as well are seen here too.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string_view>

#include "harness/ledger/prove.hpp"
#include "harness/mutants/mutants.hpp"
#include "optimized/algorithms/registry.hpp"
#include "tests/property/everyone.hpp"

namespace sp::test {
namespace {

// `seqpar verify --backend ledger` goes on to 64.
#ifdef SP_SANITIZED
const std::vector<int> kRanks{1, 2, 3, 4, 6};
#else
const std::vector<int> kRanks{1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16};
#endif

class Proofs : public Everyone {};

TEST_P(Proofs, HoldOnEveryMesh) {
  const std::vector<ledger::Proof> proofs = ledger::prove(threads(), {{GetParam()}, kRanks});
  EXPECT_EQ(proofs.size(), modules_of(*GetParam()).size());
  for (const ledger::Proof& proof : proofs) {
    EXPECT_EQ(proof.failure, "");
    EXPECT_GE(proof.runs, std::ssize(kRanks));
    EXPECT_GT(proof.pairs, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, Proofs, testing::ValuesIn(algorithms()), id_of);

// Without rounding a proof sees no rounding, and no formula inside a kernel.
bool is_about_numbers(const Mutant& mutant) {
  constexpr const char* kNumbers[] = {"carry_in_storage", "partial_in_storage", "lse_in_storage",
                                      "empty_rows_finite"};
  return std::any_of(std::begin(kNumbers), std::end(kNumbers),
                     [&](const char* id) { return std::string_view(id) == mutant.id; });
}

// Of kernels and masks: those of messages end in time-outs, or are seen by the checked mode.
TEST(Proofs, SeeMutants) {
  int seen = 0;
  std::vector<Mutant> mutants = kernel_mutants();
  for (const Mutant& more : mask_mutants()) mutants.push_back(more);
  for (const Mutant& mutant : mutants) {
    if (is_about_numbers(mutant) || !mutant.kernels) continue;
    for (const char* id : mutant.algorithms) {
      const Algorithm* algorithm = find_algorithm(id);
      ledger::ProofOptions options{{algorithm}, {2, 3, 4}, 8, {}};
      options.rig.wrap_kernels = mutant.kernels;
      bool found = false;
      for (const ledger::Proof& proof : ledger::prove(threads(), options))
        found = found || !proof.failure.empty();
      EXPECT_TRUE(found) << mutant.id << " of " << id;
    }
    ++seen;
  }
  EXPECT_GE(seen, 29);
}

}  // namespace
}  // namespace sp::test
