// The museum of bugs as a table: after how many random problems each is found, whether at 1001 tokens too and in which
// types, down to which scale of the inputs, and whether the ledger sees it. One that is not found by numbers, at that
// length and in both types, fails.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "harness/compare/oracle.hpp"
#include "harness/ledger/prove.hpp"
#include "harness/mutants/museum.hpp"
#include "harness/run/execute.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp {
namespace {

constexpr std::int64_t kMostCases = 400, kMostLongCases = 60;
constexpr std::uint64_t kSeed = 20;
constexpr int kMostHalvings = 24;
// Sanitizers look at memory: shorter, and bf16 only where f32 has no fault.
#ifdef SP_SANITIZED
constexpr std::int64_t kTokens = 301;
constexpr bool kBothTypes = false;
#else
constexpr std::int64_t kTokens = 1001;
constexpr bool kBothTypes = true;
#endif

Backend& threads() {
  static const auto backend = make_thread_backend(std::chrono::milliseconds(1500));
  return *backend;
}

Rig with(const Mutant& mutant) {
  Rig rig;
  rig.fence = Fence::kPoisonAndCanary;
  rig.wrap_kernels = mutant.kernels;
  rig.wrap_communicator = mutant.communicator;
  return rig;
}

// All inputs times `scale`, a power of two.
bool is_found(const Mutant& mutant, const Algorithm& algorithm, const Case& drawn, double scale) {
  Inputs inputs = make_inputs(drawn);
  for (HostTensor* tensor : {&inputs.q, &inputs.k, &inputs.v, &inputs.d_out})
    for (std::int64_t i = 0; i < tensor->size(); ++i) tensor->set(i, scale * tensor->at(i));
  try {
    const Outputs result =
        execute(threads(), with(mutant), algorithm, drawn.problem, inputs, drawn.world).outputs;
    const Oracle oracle(drawn.problem, inputs, drawn.exact() && scale == 1);
    return !oracle.judge(result, algorithm.roundings).passed();
  } catch (const Error&) {
    return true;
  }
}

// The first of long problems that gives the mutant away; `tries` counts them.
std::optional<Case> first_long(const Mutant& mutant, const Algorithm& algorithm, DType dtype,
                               std::int64_t& tries) {
  Pins pins = mutant.pins;
  pins.tokens = kTokens;  // on 2, 3 and 4 ranks chunks differ in length, on 7 they do not
  pins.ranks = {2, 3, 4, 7};
  pins.batch = pins.batch.value_or(1);
  pins.most_heads = 4;
  pins.dtype = dtype;
  // Problems without documents have nothing to leak, and take time.
  if (std::string_view(mutant.id).starts_with("documents_")) pins.segments = true;
  for (std::uint64_t index = 0; index < kMostLongCases; ++index) {
    std::optional<Case> found;
    find_failure(pins, algorithm.family, kSeed, index, 0, [&](const Case& drawn) {
      if (!algorithm.supports(drawn.problem, drawn.world)) return false;
      ++tries;
      if (is_found(mutant, algorithm, drawn, 1)) found = drawn;
      return false;
    });
    if (found) return found;
  }
  return std::nullopt;
}

// "3; 2^-10": the third case, and down to that scale of its inputs. Or "not found".
std::string at_length(const Mutant& mutant, const Algorithm& algorithm, DType dtype, bool& found) {
  std::int64_t tries = 0;
  const std::optional<Case> drawn = first_long(mutant, algorithm, dtype, tries);
  if (!drawn) {
    found = false;
    return "not found";
  }
  int halvings = kMostHalvings;
  while (halvings > 0 && !is_found(mutant, algorithm, *drawn, std::ldexp(1, -halvings)))
    halvings -= 2;
  return fmt::format("{}; 2^-{}", tries, halvings);
}

bool seen_by_ledger(const Mutant& mutant, const Algorithm& algorithm) {
  ledger::ProofOptions options{{&algorithm}, {2, 3, 4}, 8, {}};
  options.rig = with(mutant);
  return std::ranges::any_of(ledger::prove(threads(), options),
                             [](const ledger::Proof& proof) { return !proof.failure.empty(); });
}

int run() {
  bool all = true;
  fmt::print(
      "| bug | where | mutant | case | {0} tokens, f32 | {0}, bf16 | ledger |\n"
      "| --- | --- | --- | --- | --- | --- | --- |\n",
      kTokens);
  const std::vector<Mutant> mutants = all_mutants();
  for (const Exhibit& exhibit : museum()) {
    auto mutant = *std::ranges::find(mutants, std::string_view(exhibit.mutant),
                                     [](const Mutant& m) { return std::string_view(m.id); });
    mutant.algorithms = {exhibit.algorithm};
    const Algorithm& algorithm = *find_algorithm(exhibit.algorithm);
    const MutantVerdict verdict = hunt(mutant, kMostCases, kSeed).front();
    bool found = verdict.killed;
    const std::string f32 = exhibit.rounds_to_storage
                                ? "no fault there"
                                : at_length(mutant, algorithm, DType::kF32, found);
    const std::string bf16 = kBothTypes || exhibit.rounds_to_storage
                                 ? at_length(mutant, algorithm, DType::kBF16, found)
                                 : "not tried";
    fmt::print("| {} | {} | `{}` of {} | {} | {} | {} | {} |\n", exhibit.bug, exhibit.where,
               exhibit.mutant, exhibit.algorithm,
               verdict.killed ? std::to_string(verdict.cases) : "not found", f32, bf16,
               seen_by_ledger(mutant, algorithm) ? "yes" : "-");
    std::fflush(stdout);
    all = all && found;
  }
  fmt::print("museum: {}\n", all ? "all found" : "NOT ALL FOUND");
  return all ? 0 : 1;
}

}  // namespace
}  // namespace sp

int main() { return sp::run(); }
