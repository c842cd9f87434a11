// SPDX-License-Identifier: Apache-2.0
#include "harness/run/verify.hpp"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "harness/compare/diagnose.hpp"
#include "harness/compare/oracle.hpp"
#include "harness/run/modules.hpp"
#include "harness/witness/first_wrong.hpp"

namespace sp {
namespace {

// A case with its tensors and the truth about them, shared by all algorithms that meet it.
struct Prepared {
  Case drawn;
  Inputs inputs;
  std::optional<Oracle> oracle;  // refers to drawn and inputs: a Prepared never moves
  bool is(const Case& other, bool backward) const {
    return drawn.value_seed == other.value_seed && drawn.values == other.values &&
           drawn.decays == other.decays && drawn.problem == other.problem &&
           inputs.d_out.absent() == !backward;
  }
};

const Prepared& prepare(std::unique_ptr<Prepared>& memo, const Case& drawn, bool backward,
                        const Backend& backend) {
  if (memo == nullptr || !memo->is(drawn, backward)) {
    memo = std::make_unique<Prepared>(Prepared{drawn, make_inputs(drawn), std::nullopt});
    if (!backward) memo->inputs.d_out = {};
  }
  if (backend.leads() && !memo->oracle)
    memo->oracle.emplace(memo->drawn.problem, memo->inputs, memo->drawn.exact(),
                         backend.operands());
  return *memo;
}

std::string compare_cost(const char* what, int rank, std::int64_t measured,
                         std::int64_t predicted) {
  if (measured == predicted) return {};
  return fmt::format("rank {} {}: measured {}, cost() says {}", rank, what, measured, predicted);
}

std::string check_costs(const Execution& execution, const Algorithm& algorithm, const Case& drawn,
                        bool backward) {
  const Layout layout(algorithm.sharding, drawn.problem.shape.N, drawn.world.size);
  for (int rank = 0; rank < drawn.world.size; ++rank) {
    const Measured& measured = execution.ranks[static_cast<std::size_t>(rank)];
    const Cost predicted = algorithm.cost(drawn.problem, layout, drawn.world, rank);
    for (const bool back : {false, true}) {
      if (back && !backward) continue;
      const PassCost& m = back ? measured.backward : measured.forward;
      const PassCost& p = back ? predicted.backward : predicted.forward;
      const char* pass = back ? "backward" : "forward";
      std::string message = compare_cost("bytes sent", rank, m.bytes_sent, p.bytes_sent);
      if (message.empty())
        message = compare_cost("messages sent", rank, m.messages_sent, p.messages_sent);
      if (message.empty()) message = compare_cost("flops", rank, m.flops, p.flops);
      if (!message.empty()) return fmt::format("{} {}", pass, message);
    }
  }
  return {};
}

CaseReport check(Backend& backend, const Rig& rig, const Algorithm& algorithm, const Case& drawn,
                 bool backward, std::unique_ptr<Prepared>& memo) {
  CaseReport report;
  const Prepared& prepared = prepare(memo, drawn, backward, backend);
  Execution execution;
  try {
    execution = execute(backend, rig, algorithm, drawn.problem, prepared.inputs, drawn.world);
  } catch (const Error& error) {
    // A wrong call is the caller's, not the algorithm's.
    if (!backend.survives_failure() || error.kind() == ErrorKind::kUsage) throw;
    report.message = error.what();
    return report;
  }
  if (backend.leads()) {
    report.verdict = prepared.oracle->judge(execution.outputs, algorithm.roundings);
    if (!report.verdict.passed()) {
      report.message =
          diagnose(drawn.problem, prepared.inputs, report.verdict,
                   Layout(algorithm.sharding, drawn.problem.shape.N, drawn.world.size));
    } else {
      report.message = check_costs(execution, algorithm, drawn, backward);
    }
  }
  if (!backend.agree(report.message.empty()) && report.message.empty())
    report.message = "failed on rank 0";
  return report;
}

constexpr std::string_view kNobody =
    "no kernel and no message: all did what they were asked to; `--backend ledger` finds out "
    "whether it was the right thing";

// Where the fault is, in a sentence; empty: nobody watched.
std::string find_first_wrong(Backend& backend, const VerifyOptions& options,
                             const Algorithm& algorithm, const Case& smallest,
                             std::unique_ptr<Prepared>& memo) {
  constexpr double kMostWork = 5e8;  // multiply-adds of a forward pass: a minute under the witness
  const Shape& s = smallest.problem.shape;
  const auto pairs = static_cast<double>(s.B * s.H * s.N) * static_cast<double>(s.N);
  if (!options.name_first_wrong || !backend.can_be_watched() ||
      pairs * static_cast<double>(s.D + s.E) > kMostWork)
    return {};
  const Prepared& prepared = prepare(memo, smallest, options.backward, backend);
  const Oracle& oracle = *prepared.oracle;
  const std::string culprit =
      first_wrong(backend, options.rig, algorithm, smallest.problem, prepared.inputs,
                  smallest.world, oracle.sampled() ? nullptr : &oracle.exact());
  return culprit.empty() ? std::string(kNobody) : culprit;
}

Failure describe_failure(const AlgorithmReport& row, const VerifyOptions& options,
                         std::uint64_t index, const Case& smallest, const std::string& what,
                         const std::string& first, bool thrown) {
  const char* id = row.algorithm->id;
  std::string message = fmt::format(
      "{} fails\n  problem  {}\n  found    {}\n{}  repeat   ./seqpar verify --algorithm {}{} "
      "--seed "
      "{} "
      "--case {}{}",
      id, describe(smallest), what, first.empty() ? "" : fmt::format("  first    {}\n", first), id,
      row.module ? fmt::format(" --module {}", name_of(*row.module)) : "", options.seed, index,
      options.repeat_flags);
  if (!thrown && !options.rig.checked)
    message +=
        "\n  or with  --checked, which finds buffers touched in flight and memory that nobody "
        "wrote";
  return {index, smallest, what, first, std::move(message)};
}

// Draws case `index` for one algorithm and enters the outcome into its report.
void meet(Backend& backend, const VerifyOptions& options, Pins pins, std::uint64_t index,
          AlgorithmReport& report, std::unique_ptr<Prepared>& memo) {
  const Algorithm& algorithm = *report.algorithm;
  if (report.module) pins.module = report.module;
  std::string what;
  bool thrown = false, skipped = false,
       first = true;  // the case itself comes first, then its smaller ones
  const auto fails = [&](const Case& drawn) {
    validate(drawn.problem);
    validate(drawn.world, backend);
    const bool itself = std::exchange(first, false);
    if (const Support support = algorithm.supports(drawn.problem, drawn.world); !support) {
      skipped = skipped || itself;
      if (itself) report.skip_reason = support.error().reason;
      return false;
    }
    const CaseReport result = check(backend, options.rig, algorithm, drawn, options.backward, memo);
    if (!result.message.empty()) {
      what = result.message;
      thrown = result.verdict.tensors.empty();
      return true;
    }
    for (const TensorVerdict& tensor : result.verdict.tensors) {
      if (!(tensor.beyond > report.beyond)) continue;
      report.beyond = tensor.beyond;
      report.beyond_of = tensor.name;
    }
    const TensorVerdict* worst = result.verdict.worst();
    const bool higher = worst != nullptr && worst->highest().ratio > report.worst.highest().ratio;
    if (worst != nullptr && (report.worst.worst < 0 || higher)) report.worst = *worst;
    return false;
  };
  const std::optional<Case> smallest =
      find_failure(pins, algorithm.family, options.seed, index, options.most_shrinks, fails);
  if (smallest) {
    std::string culprit = find_first_wrong(backend, options, algorithm, *smallest, memo);
    if (culprit == kNobody && thrown) culprit.clear();  // the error itself says where
    report.failure = describe_failure(report, options, index, *smallest, what, culprit, thrown);
  }
  ++(skipped ? report.skipped : report.cases);
}

// The rows of the report: modules outside, so that algorithms share each case's reference.
std::vector<AlgorithmReport> rows_of(const VerifyOptions& options) {
  std::vector<AlgorithmReport> rows;
  const auto add = [&](const Algorithm* algorithm, std::optional<Module> module,
                       const std::string& refusal) {
    rows.emplace_back();
    rows.back().algorithm = algorithm;
    rows.back().module = module;
    rows.back().refusal = refusal;
  };
  const bool per_module = options.per_module && !options.pins.module;
  std::vector<std::vector<ModuleAnswer>> answers;
  for (const Algorithm* algorithm : options.algorithms) {
    answers.push_back(per_module ? ask_modules(*algorithm) : std::vector<ModuleAnswer>{});
    if (answers.back().empty()) add(algorithm, {}, {});
  }
  for (const Module module : kModules) {
    for (std::size_t i = 0; i < answers.size(); ++i) {
      for (const ModuleAnswer& answer : answers[i]) {
        if (answer.module == module) add(options.algorithms[i], module, answer.refusal);
      }
    }
  }
  return rows;
}

}  // namespace

CaseReport check_case(Backend& backend, const Rig& rig, const Algorithm& algorithm,
                      const Case& drawn, bool backward) {
  std::unique_ptr<Prepared> memo;
  return check(backend, rig, algorithm, drawn, backward, memo);
}

std::vector<AlgorithmReport> verify(
    Backend& backend, const VerifyOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress) {
  // Pins may leave an algorithm nothing that it supports: give up after this many draws per case.
  constexpr std::int64_t kMostDrawsPerCase = 10;
  std::vector<AlgorithmReport> reports = rows_of(options);
  Pins pins = options.pins;
  pins.most_ranks = std::min(pins.most_ranks, backend.most_ranks());
  pins.f64 = pins.f64 && backend.knows_f64();
  pins.longest = std::min(pins.longest, backend.longest());
  const auto finished = [&](const AlgorithmReport& report) {
    return report.failure || report.cases == options.cases || !report.refusal.empty();
  };
  const std::int64_t total = options.cases * static_cast<std::int64_t>(reports.size());
  std::unique_ptr<Prepared> memo;
  for (std::int64_t draw = 0; draw < options.cases * kMostDrawsPerCase; ++draw) {
    std::int64_t done = 0;
    for (AlgorithmReport& report : reports) {
      if (!finished(report)) {
        const std::uint64_t index = options.first_case + static_cast<std::uint64_t>(draw);
        meet(backend, options, pins, index, report, memo);
      }
      done += finished(report) ? options.cases : report.cases;
    }
    if (progress) progress(done, total);
    if (done == total) break;
  }
  return reports;
}

}  // namespace sp
