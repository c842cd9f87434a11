// RSA, claims C5 to C10: those that follow from counts and from the paper's own tables.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/papers/counted.hpp"
#include "harness/papers/formula.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"

namespace sp {
namespace {

struct Model {
  std::int64_t hidden, heads;
  std::int64_t head_size() const { return hidden / heads; }
};

Problem problem_of(const Model& m, std::int64_t batch, std::int64_t tokens, DType dtype,
                   std::int64_t projected = 0) {
  Problem problem = softmax_problem({batch, tokens, m.heads, m.heads, m.head_size(), m.head_size()},
                                    dtype, false);
  problem.projected = projected;
  return problem;
}

// What a claim's row is called: its id and its own words.
std::string claim_text(const Config& config, const PaperTable& table, const std::string& id) {
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (table.text(row, "id") == "RSA-" + id) return id + ": " + table.text(row, "claim");
  }
  config.refuse("table", fmt::format("no claim RSA-{}", id));
}

// Longest sequence whose Linformer layer fits in `bytes` per rank, shards and both passes included.
double longest(const Model& m, std::int64_t batch, std::int64_t projected, int ranks,
               double bytes) {
  const auto needs = [&](std::int64_t tokens) {
    const Problem problem = problem_of(m, batch, tokens, DType::kF16, projected);
    const Measured cost = count("rsa_linformer", problem, {.size = ranks}).most;
    const double shards = 4.0 * 2 * static_cast<double>(batch * m.hidden * tokens) / ranks;
    return shards + static_cast<double>(cost.forward.peak_bytes + cost.backward.peak_bytes);
  };
  // Linear in the length.
  const std::int64_t from = ranks, to = 1024 * ranks;
  const double low = needs(from), per_token = (needs(to) - low) / static_cast<double>(to - from);
  return static_cast<double>(from) + (bytes - low) / per_token;
}

// What one layer of RSA keeps from forward to backward on a rank: shards, output, probabilities.
double kept_bytes(const Model& m, std::int64_t batch, std::int64_t tokens, int ranks) {
  const auto peak = [&](std::int64_t length) {
    return static_cast<double>(
        count("rsa", problem_of(m, batch, length, DType::kF32), {.size = ranks})
            .most.forward.peak_bytes);
  };
  const double scores = (peak(2 * tokens) - 2 * peak(tokens)) / 2;
  return scores + 4.0 * 4 * static_cast<double>(batch * tokens * m.hidden) / ranks;
}

double table_memory(const Config& config, const PaperTable& memory, const std::string& method,
                    const Symbols& symbols) {
  double scalars = 0;
  int found = 0;
  for (std::size_t row = 0; row < memory.rows(); ++row) {
    const std::string& formula = memory.text(row, "scalars");
    if (formula.empty() || memory.text(row, "method") != method) continue;
    if (memory.text(row, "block") != "MLP" && memory.text(row, "block") != "attention") continue;
    scalars += evaluate(formula, symbols);
    ++found;
  }
  if (found != 2) config.refuse("memory", fmt::format("no two blocks of {}", method));
  return scalars;
}

void add_volume(ReplayResult& result, const Config& config, const PaperTable& claims,
                const Model& m, std::int64_t batch, std::int64_t tokens, int ranks) {
  const Measured rsa =
      count("rsa", problem_of(m, batch, tokens, DType::kF32), {.size = ranks}).most;
  const double ours = static_cast<double>(rsa.forward.bytes_sent + rsa.backward.bytes_sent) / 4;
  const double tensor =
      4.0 *
      static_cast<double>(all_reduce_traffic(batch * tokens * m.hidden, 1, 0, ranks).bytes_sent);
  const double weights =
      static_cast<double>(all_reduce_traffic(12 * m.hidden * m.hidden, 1, 0, ranks).bytes_sent);
  const std::string label = fmt::format("{} tokens, batch {}, {} ranks", tokens, batch, ranks);
  result.rows.push_back(row_of(label, claim_text(config, claims, "C6"), "RSA / tensor parallel",
                               {1, Grade::kText, 0}, ours / tensor, Provenance::kCounted));
  result.rows.push_back(context_row(label, "C6 with the sum of weight gradients",
                                    "RSA / tensor parallel", (ours + weights) / tensor,
                                    Provenance::kCounted));
  result.rows.push_back(not_checkable(
      label, claim_text(config, claims, "C7"), "all-gather", 1,
      fmt::format("a pipeline of stages; outputs of RSA stay where the next stage wants them, and "
                  "the all-gather left out would send {} scalars per rank",
                  all_gather_traffic(batch * tokens * m.hidden / ranks, ranks).bytes_sent)));
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable claims = table_of(config), memory = table_of(config, "memory");
  const PaperTable crossovers = table_of(config, "crossovers");
  const Model m{config.integer("hidden", 1, 1 << 20), config.integer("heads", 1, 1 << 10)};
  const std::int64_t batch = config.integer("batch", 1, 1 << 20);
  const std::int64_t tokens = config.size("tokens", 1);
  const std::int64_t projected = config.integer("projected", 1, 1 << 20);
  const std::vector<std::int64_t> ranks = config.integers("ranks", 2, 4096);
  const double near = config.number("near", 0, 1);
  const double capacity = config.quantity("capacity", Dimension::kBytes, 1, 1e15).value;
  const int most = static_cast<int>(*std::max_element(ranks.begin(), ranks.end()));
  ReplayResult result;

  const int linformer = static_cast<int>(config.integer("linformer_ranks", 2, 4096));
  const std::int64_t linformer_batch = config.integer("linformer_batch", 1, 1 << 20);
  const double growth = longest(m, linformer_batch, projected, linformer, capacity) /
                        longest(m, linformer_batch, projected, 1, capacity);
  result.rows.push_back(claim_row(fmt::format("Linformer, 1 to {} ranks", linformer),
                                  claim_text(config, claims, "C5"),
                                  growth >= (1 - near) * linformer, Provenance::kCounted,
                                  fmt::format("the longest sequence grows {:.2f} times", growth)));
  result.rows.push_back(context_row(fmt::format("Linformer, 1 to {} ranks", linformer),
                                    "growth of the longest sequence of a layer", "1", growth,
                                    Provenance::kCounted));

  add_volume(result, config, claims, m, batch, tokens, most);

  double least = INFINITY, largest = 0;
  for (const std::int64_t n : ranks) {
    const double kept = kept_bytes(m, batch * n, tokens, static_cast<int>(n));
    least = std::min(least, kept);
    largest = std::max(largest, kept);
  }
  result.rows.push_back(claim_row("batch grows with N", claim_text(config, claims, "C8"),
                                  largest <= (1 + near) * least, Provenance::kCounted,
                                  fmt::format("it grows {:.3f} times", largest / least)));
  const auto backward = [&](int n) {
    return static_cast<double>(
        count("rsa", problem_of(m, batch * n, tokens, DType::kF32), {.size = n})
            .most.backward.peak_bytes);
  };
  result.rows.push_back(context_row(fmt::format("batch grows with N, {} ranks", most),
                                    "C8: what backward allocates, over one rank", "1",
                                    backward(most) / backward(1), Provenance::kCounted));

  for (const std::int64_t n : ranks) {
    const auto number = [](std::int64_t value) { return static_cast<double>(value); };
    const std::int64_t length = config.size("tokens_per_rank", 1) * n;
    const Symbols symbols{{"B", number(batch)},         {"L", number(length)},
                          {"H", number(m.hidden)},      {"Z", number(m.heads)},
                          {"A", number(m.head_size())}, {"N", number(n)}};
    const double sequence = table_memory(config, memory, "sequence parallel", symbols);
    const double tensor = table_memory(config, memory, "tensor parallel", symbols);
    const std::string label = fmt::format("L = {}, {} ranks", length, n);
    result.rows.push_back(
        claim_row(label, claim_text(config, claims, "C9") + " (memory)", sequence < tensor,
                  Provenance::kFormula,
                  fmt::format("RSA takes {:.3f} of tensor parallelism's", sequence / tensor)));
    result.rows.push_back(context_row(label, "C9: memory of a layer by tables 1 and 2",
                                      "RSA / tensor parallel", sequence / tensor,
                                      Provenance::kFormula));
    for (std::size_t row = 0; row < crossovers.rows(); ++row) {
      const double bound = evaluate(crossovers.text(row, "tokens_in_batch"), symbols);
      const std::string& block = crossovers.text(row, "block");
      const auto at = [&](const std::string& method) {
        for (std::size_t i = 0; i < memory.rows(); ++i) {
          if (memory.text(i, "block") == block && memory.text(i, "method") == method &&
              !memory.text(i, "scalars").empty())
            return evaluate(memory.text(i, "scalars"), symbols);
        }
        config.refuse("memory", fmt::format("no row for {}, {}", block, method));
      };
      const bool smaller = at("sequence parallel") < at("tensor parallel");
      result.rows.push_back(claim_row(label,
                                      fmt::format("C10: {}: less memory if and only if B L > {}",
                                                  block, crossovers.text(row, "tokens_in_batch")),
                                      smaller == (number(batch * length) > bound),
                                      Provenance::kFormula, "the tables say otherwise"));
    }
  }
  result.rows.push_back(not_checkable(
      "whole models", claim_text(config, claims, "C9") + " (throughput)", "1", ReplayRow::kNone,
      "BERT training with Megatron-LM and with RSA on P100, with pipelines"));
  result.findings = {
      fmt::format("C5: the longest sequence of a layer grows {:.2f} times on {} ranks: the "
                  "projected keys and "
                  "values take the same on any number of ranks, all else divides.",
                  growth, linformer),
      fmt::format("C6 holds without the sum of weight gradients, which tensor parallelism does not "
                  "need; C8 holds for what is kept, while backward's dK and dV of all tokens grow "
                  "{:.1f} times on {} ranks.",
                  backward(most) / backward(1), most),
      "C7 depends on a pipeline that sends slices and gathers them, as Megatron-LM's does."};
  result.assumption = fmt::format(
      "Words are read as numbers: \"near-ideal\" and \"almost constant\" as within {:.0f} %. "
      "Memory "
      "of tensor parallelism by the paper's own tables.",
      100 * near);
  return result;
}

}  // namespace

const ReplayItem kRsaClaims{"rsa/claims", "RSA: claims C5 to C10",
                            "Li et al. 2021, arXiv:2105.13120, sections 3 and 4", run};

}  // namespace sp
