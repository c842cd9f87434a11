// SPDX-License-Identifier: Apache-2.0
#include "experiments/verify_ledger.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "experiments/backends.hpp"
#include "experiments/progress.hpp"
#include "harness/results/run_file.hpp"
#include "harness/run/execute.hpp"

namespace sp {
namespace {

std::string row_name(const ledger::Proof& proof) {
  return proof.module ? fmt::format("{} {}", proof.algorithm->id, name_of(*proof.module))
                      : proof.algorithm->id;
}

void print_text(const std::vector<ledger::Proof>& proofs, const std::vector<int>& ranks) {
  fmt::print("# seqpar verify: back-end ledger, exact, forward and backward, {} rank counts\n",
             ranks.size());
  fmt::print("# {:<28} {:>6} {:>14}  verdict\n", "algorithm", "runs", "pairs");
  std::int64_t pairs = 0, failed = 0;
  for (const ledger::Proof& proof : proofs) {
    pairs += proof.pairs;
    failed += proof.passed() ? 0 : 1;
    fmt::print("  {:<28} {:>6} {:>14}  {}\n", row_name(proof), proof.runs, proof.pairs,
               !proof.failure.empty() ? "FAILED"
               : proof.passed()       ? "proved"
                                      : "NOT RUN");
  }
  for (const ledger::Proof& proof : proofs) {
    if (!proof.failure.empty()) fmt::print("{} fails\n  {}\n", row_name(proof), proof.failure);
    if (proof.runs == 0) fmt::print("{} refused every problem\n", row_name(proof));
  }
  fmt::print("# {} of {} algorithms and modules proved, {} pairs of query and key: {}\n",
             std::ssize(proofs) - failed, proofs.size(), pairs, failed == 0 ? "OK" : "FAILED");
}

void print_json(const std::vector<ledger::Proof>& proofs, const Command& command) {
  nlohmann::ordered_json out{{"command", command.line}};
  for (const ledger::Proof& proof : proofs) {
    nlohmann::ordered_json row{{"id", proof.algorithm->id},
                               {"backend", "ledger"},
                               {"runs", proof.runs},
                               {"pairs", proof.pairs},
                               {"passed", proof.passed()}};
    if (proof.module) row["module"] = name_of(*proof.module);
    if (!proof.failure.empty()) row["failure"] = proof.failure;
    out["algorithms"].push_back(std::move(row));
  }
  fmt::print("{}\n", out.dump(2));
}

}  // namespace

int verify_by_ledger(const LedgerOptions& options, const Command& command) {
  const auto backend = make_thread_backend(options.time_limit);
  for (const int ranks : options.proofs.ranks) validate({ranks, 1}, *backend);
  std::vector<ledger::Proof> proofs;
  {
    Progress progress(true);
    proofs = ledger::prove(*backend, options.proofs, [&](std::int64_t done, std::int64_t total) {
      progress.show(done, total);
    });
  }
  if (options.json) {
    print_json(proofs, command);
  } else {
    print_text(proofs, options.proofs.ranks);
  }
  bool passed = true;
  VerificationTable table{{}, 0, command.line};
  for (const ledger::Proof& proof : proofs) {
    passed = passed && proof.passed();
    table.rows.push_back({row_name(proof), "ledger", proof.runs, 0, 0, 0, 0, proof.passed()});
  }
  if (!options.out.empty()) write_verification_run(options.out, table, capture_environment());
  return passed ? kOk : kFailed;
}

}  // namespace sp
