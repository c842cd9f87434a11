// SPDX-License-Identifier: Apache-2.0
#include "harness/ledger/prove.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <memory>

#include "harness/ledger/ledger_kernels.hpp"
#include "harness/run/execute.hpp"
#include "harness/run/modules.hpp"
#include "optimized/comm/decorator.hpp"
#include "reference/problem/error.hpp"

namespace sp::ledger {
namespace {

using std::int64_t;

// Notices whether an algorithm cuts its ranks into groups: whether it knows of a mesh.
class GroupWatch final : public CommunicatorDecorator {
 public:
  GroupWatch(Communicator& inner, std::atomic<bool>& groups)
      : CommunicatorDecorator(inner), groups_(groups) {}

 protected:
  std::unique_ptr<Communicator> start_split(int colour, int key) override {
    groups_ = true;
    return split_inner(colour, key);
  }

 private:
  std::atomic<bool>& groups_;
};

// A fault of the rig sits outside: it changes what the algorithm asks the books for.
class FaultyLedger final : public KernelsDecorator {
 public:
  FaultyLedger(std::unique_ptr<Kernels> ledger, std::unique_ptr<Kernels> faulty)
      : KernelsDecorator(*faulty), ledger_(std::move(ledger)), faulty_(std::move(faulty)) {}

 private:
  std::unique_ptr<Kernels> ledger_, faulty_;
};

std::vector<int> divisors(int ranks) {
  std::vector<int> all;
  for (int d = 1; d <= ranks; ++d) {
    if (ranks % d == 0) all.push_back(d);
  }
  return all;
}

// Documents of 1 to 11 tokens; a batch has others. At half of the lengths there are three ids, which return.
std::vector<std::int32_t> documents(int64_t B, int64_t N) {
  const bool return_ids = N / 2 % 2 == 0;
  std::vector<std::int32_t> ids;
  for (int64_t b = 0; b < B; ++b) {
    std::int32_t id = 0;
    int64_t left = 3 + b;
    for (int64_t n = 0; n < N; ++n) {
      if (left-- == 0) {
        ++id;
        left = (n * 7 + b) % 11;
      }
      ids.push_back(return_ids ? id % 3 : id);
    }
  }
  return ids;
}

// Books that several algorithms share.
class Library {
 public:
  const Books& of(const Problem& problem) {
    for (const auto& [known, books] : shelf_) {
      if (known == problem) return *books;
    }
    if (shelf_.size() >= 8) shelf_.erase(shelf_.begin());
    shelf_.emplace_back(problem, std::make_unique<Books>(open_books(problem)));
    return *shelf_.back().second;
  }

 private:
  std::vector<std::pair<Problem, std::unique_ptr<Books>>> shelf_;
};

// The problem number `index` for so many ranks; `mask` has a bit for each term.
Problem drawn_problem(const Proof& proof, int ranks, int64_t index, int64_t mask, int64_t heads) {
  const int64_t P = ranks;
  const int64_t lengths[] = {
      P + 1, 3 * P + 2, P, 2 * P + 1, std::max<int64_t>(P - 1, 0), P <= 8 ? 1000 : 5 * P + 3};
  Problem problem;
  problem.dtype = DType::kF64;
  const int64_t group = 1 + index % 2, batches = index % 3 == 2 ? 2 : 1;
  const int64_t length = lengths[index % std::ssize(lengths)];
  // Equal head sizes too: only then can keys and values be mistaken for each other.
  problem.shape = {batches, length, heads * group, heads, 2 + index / 2 % 2, 3};
  problem.scale = 0.5;
  if (proof.algorithm->family == Family::kProjectedSoftmax) {
    problem.projected = 1 + index % 5;
    return problem;
  }
  problem.mask.causal = mask % 2 != 0;
  if (mask / 2 % 2 != 0) problem.mask.segment_ids = documents(batches, length);
  if (proof.module) {
    problem.module = proof.module;
    problem.epsilon = default_epsilon(*proof.module);
    problem.shape.D = kFlowColumns;
    problem.shape.E = kFlowColumns + index / 2 % 2;
    if (is_normalised(*proof.module)) problem.scale = 1;
    if (proof.algorithm->family == Family::kHybrid) {
      constexpr const char* kStacks[] = {"LN", "NLL", "LLLN", "NN", "L"};
      problem.mask.causal = true;
      problem.layers = kStacks[index % std::ssize(kStacks)];
      problem.shape.E = problem.shape.D;
    }
  }
  // Linear attention knows a window in one module only.
  if (mask / 4 != 0 && (!proof.module || proof.module == Module::kBased)) {
    problem.mask.window = 1 + index % 7 * P / 2;
    problem.mask.causal = problem.mask.causal || proof.module;
  }
  return problem;
}

// One world of one algorithm.
void prove_world(Backend& backend, const Rig& rig, Library& library, const World& world,
                 int64_t index, Proof& proof) {
  constexpr int64_t kMasks = 8;
  const Algorithm& algorithm = *proof.algorithm;
  for (int64_t shift = 0; shift < kMasks; ++shift) {
    // As few heads as the algorithm divides among these ranks.
    for (const int64_t heads : {1 + index % 5 / 3, int64_t{world.size}}) {
      const Problem problem =
          drawn_problem(proof, world.size, index, (index / 2 + shift) % kMasks, heads);
      if (!algorithm.supports(problem, world)) continue;
      const Books& books = library.of(problem);
      const std::string wrong = prove_one(backend, rig, algorithm, books, world);
      if (!wrong.empty()) {
        proof.failure = fmt::format("{}, {} ranks, {} per node: {}", describe(books.problem),
                                    world.size, world.node_size, wrong);
      }
      ++proof.runs;
      proof.pairs += books.pairs;
      return;
    }
  }
  proof.failure =
      fmt::format("it refuses every problem on {} ranks, {} per node", world.size, world.node_size);
}

}  // namespace

std::string prove_one(Backend& backend, const Rig& rig, const Algorithm& algorithm,
                      const Books& books, const World& world) {
  Rig keeping = rig;
  keeping.wrap_kernels = [&](Kernels& inner, Memory& memory) -> std::unique_ptr<Kernels> {
    auto ledger = std::make_unique<LedgerKernels>(inner, books);
    if (!rig.wrap_kernels) return ledger;
    auto faulty = rig.wrap_kernels(*ledger, memory);
    return std::make_unique<FaultyLedger>(std::move(ledger), std::move(faulty));
  };
  Execution execution;
  try {
    execution = execute(backend, keeping, algorithm, books.problem, books.inputs, world);
  } catch (const Error& error) {
    if (!backend.survives_failure() || error.kind() == ErrorKind::kUsage) throw;
    return error.what();
  }
  const std::string wrong = backend.leads() ? audit(books, execution.outputs) : std::string();
  if (!backend.agree(wrong.empty()) && wrong.empty()) return "wrong on rank 0";
  return wrong;
}

std::vector<Proof> prove(Backend& backend, const ProofOptions& options,
                         const std::function<void(int64_t, int64_t)>& progress) {
  std::vector<Proof> proofs;
  for (const Algorithm* algorithm : options.algorithms) {
    const auto add = [&](std::optional<Module> module) {
      proofs.emplace_back();
      proofs.back().algorithm = algorithm;
      proofs.back().module = module;
    };
    const std::vector<ModuleAnswer> answers = ask_modules(*algorithm);
    if (answers.empty()) add({});
    for (const ModuleAnswer& answer : answers) {
      if (answer.refusal.empty()) add(answer.module);
    }
  }
  Library library;
  int64_t done = 0, drawn = 0;
  const auto total = std::ssize(options.ranks) * options.rounds * std::ssize(proofs);
  for (const int ranks : options.ranks) {
    for (int64_t round = 0; round < options.rounds; ++round, ++drawn) {
      for (Proof& proof : proofs) {
        ++done;
        if (!proof.failure.empty()) continue;
        std::atomic<bool> groups = false;
        Rig rig = options.rig;
        rig.fence = Fence::kPoisonAndCanary;
        if (!rig.wrap_communicator) {
          rig.wrap_communicator = [&](Communicator& comm) {
            return std::make_unique<GroupWatch>(comm, groups);
          };
        }
        int64_t mesh = 0;
        for (const int node : divisors(ranks)) {
          if (node > 1 && !groups) break;  // one world is like the other
          prove_world(backend, rig, library, {ranks, node, 1}, drawn + mesh++, proof);
          if (!proof.failure.empty()) break;
        }
        if (progress) progress(done, total);
      }
    }
  }
  return proofs;
}

}  // namespace sp::ledger
