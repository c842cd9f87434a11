// seqpar verify --backend ledger: proofs without rounding (harness/ledger/prove.hpp).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "experiments/commands.hpp"
#include "harness/ledger/prove.hpp"

namespace sp {

struct LedgerOptions {
  ledger::ProofOptions proofs;
  std::chrono::milliseconds time_limit{};
  bool json = false;
  std::string out;  // run file; empty: none
};

int verify_by_ledger(const LedgerOptions& options, const Command& command);

}  // namespace sp
