// SPDX-License-Identifier: Apache-2.0
#include "harness/mutants/mutants.hpp"
#include "harness/run/verify.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp {

std::vector<Mutant> all_mutants() {
  std::vector<Mutant> all = kernel_mutants();
  for (const auto& more :
       {mask_mutants(), message_mutants(), field_mutants(), linear_mutants(),
        linear_state_mutants(), linear_gradient_mutants(), linear_message_mutants()})
    all.insert(all.end(), more.begin(), more.end());
  return all;
}

Mutant with_module(Module module, Mutant mutant) {
  mutant.pins.module = module;
  return mutant;
}

std::vector<MutantVerdict> hunt(Backend& backend, const Rig& rig, const Mutant& mutant,
                                std::int64_t most_cases, std::uint64_t seed, bool watched) {
  std::vector<MutantVerdict> verdicts;
  for (const char* id : mutant.algorithms) {
    VerifyOptions options;
    options.algorithms = {find_algorithm(id)};
    SP_CHECK(options.algorithms.front() != nullptr,
             std::string("a mutant names no algorithm: ") + id);
    options.pins = mutant.pins;
    options.pins.longest = 0;  // time limits of this hunt are short
    options.cases = most_cases;
    options.seed = seed;
    options.most_shrinks = 0;
    options.name_first_wrong = watched;
    options.rig = rig;
    options.rig.wrap_kernels = mutant.kernels;
    options.rig.wrap_communicator = mutant.communicator;
    const AlgorithmReport report = verify(backend, options).front();
    MutantVerdict verdict{id, report.failure.has_value(), report.cases, {}, {}};
    if (report.failure) {
      verdict.how = report.failure->what;
      verdict.first = report.failure->first;
    }
    verdicts.push_back(std::move(verdict));
  }
  return verdicts;
}

std::vector<MutantVerdict> hunt(const Mutant& mutant, std::int64_t most_cases, std::uint64_t seed) {
  // Lost messages end in a time-out, which is a kill; real waits of these small cases take ms.
  const auto backend = make_thread_backend(std::chrono::milliseconds(1500));
  Rig rig;
  rig.checked = true;
  rig.fence = Fence::kPoisonAndCanary;
#ifdef SP_SANITIZED
  const bool watched = false;  // takes as long as the hunt, and has tests of its own
#else
  const bool watched = true;
#endif
  return hunt(*backend, rig, mutant, most_cases, seed, watched);
}

}  // namespace sp
