// RSA, tables 1 to 3: memory of a block, term by term, and where it is less than that of tensor
// parallelism.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"
#include "harness/papers/rsa/setting.hpp"
#include "reference/problem/error.hpp"

namespace sp {
namespace {

// Scalars that a rank allocates, beyond its shards, when a sequence is `tokens` long.
double scalars(const RsaSetting& s, const char* algorithm, std::int64_t tokens,
               std::int64_t projected, bool backward) {
  const Measured most = count(algorithm, s.attention(tokens, projected), {.size = s.ranks}).most;
  return static_cast<double>(backward ? most.backward.peak_bytes : most.forward.peak_bytes) / 4;
}

// The count is a polynomial in the length; its parts at the length of the setting.
struct Parts {
  double linear = 0, square = 0;
};
Parts rsa_parts(const RsaSetting& s, bool backward) {
  const double once = scalars(s, "rsa", s.tokens, 0, backward);
  const double twice = scalars(s, "rsa", 2 * s.tokens, 0, backward);
  const double square = (twice - 2 * once) / 2;
  return {once - square, square};
}

// Linformer: a + b L + c K + d L K.
struct LinformerParts {
  double length = 0, projected = 0, scores = 0;
};
LinformerParts linformer_parts(const RsaSetting& s) {
  const auto at = [&](std::int64_t tokens, std::int64_t projected) {
    return scalars(s, "rsa_linformer", tokens, projected, false);
  };
  const std::int64_t L = s.tokens, K = s.projected;
  const double both = at(2 * L, 2 * K), longer = at(2 * L, K), wider = at(L, 2 * K), one = at(L, K);
  const double scores = both - longer - wider + one;
  return {longer - one - scores, wider - one - scores, scores};
}

std::vector<std::string> terms_of(const std::string& formula) {
  std::vector<std::string> terms;
  for (std::size_t from = 0; from < formula.size();) {
    const std::size_t to = std::min(formula.find('+', from), formula.size());
    std::string term = formula.substr(from, to - from);
    std::erase(term, ' ');
    terms.push_back(std::move(term));
    from = to + 1;
  }
  return terms;
}

std::string formula_of(const PaperTable& table, const std::string& block, const std::string& method,
                       Grade& grade) {
  for (std::size_t row = 0; row < table.rows(); ++row) {
    if (table.text(row, "block") == block && table.text(row, "method") == method &&
        !table.text(row, "scalars").empty()) {
      grade = table.grade(row);
      return table.text(row, "scalars");
    }
  }
  throw Error(ErrorKind::kUsage, fmt::format("{}: no row for {}, {}", table.name(), block, method));
}

bool has(const std::string& term, const char* part) { return term.find(part) != term.npos; }

void add_attention_terms(ReplayResult& result, const PaperTable& table, const RsaSetting& s) {
  Grade grade{};
  const Symbols is = s.symbols();
  const Parts forward = rsa_parts(s, false), backward = rsa_parts(s, true);
  const double shards = 3 * evaluate("B*L*H/N", is);
  for (const std::string& term :
       terms_of(formula_of(table, "attention", "sequence parallel", grade))) {
    const PaperValue paper{evaluate(term, is), grade, 0};
    const auto add = [&](const char* what, double ours, Provenance provenance, const char* reason) {
      result.rows.push_back(row_of(s.label(), fmt::format("attention, {}: {}", term, what),
                                   "scalar", paper, ours, provenance, reason));
    };
    if (has(term, "L^2")) {
      add("scores, forward", forward.square, Provenance::kCounted, "");
      // Forward leaves its probabilities for backward, which adds their gradients.
      add("scores, backward", forward.square + backward.square, Provenance::kCounted,
          "backward holds the probabilities and their gradients");
    } else if (has(term, "B*L*H")) {
      add("input of the block", evaluate("B*L*H/N", is), Provenance::kFormula, "");
    } else if (has(term, "L")) {
      add("Q, K, V, output", shards + forward.linear, Provenance::kCounted,
          "the formula leaves out the buffers that keys and values arrive in, and the log-sum-exp "
          "of every row");
    } else {
      add("4 matrices, 4 scalars per weight with Adam", 4 * evaluate("4*A*Z*H", is),
          Provenance::kFormula, "");
    }
  }
}

void add_linformer_terms(ReplayResult& result, const PaperTable& table, const RsaSetting& s) {
  Grade grade{};
  const Symbols is = s.symbols();
  const LinformerParts parts = linformer_parts(s);
  const double shards = 3 * evaluate("B*L*H/N", is);
  for (const std::string& term :
       terms_of(formula_of(table, "Linformer attention", "sequence parallel", grade))) {
    const PaperValue paper{evaluate(term, is), grade, 0};
    const auto add = [&](const char* what, double ours, Provenance provenance, const char* reason) {
      result.rows.push_back(row_of(s.label(), fmt::format("Linformer, {}: {}", term, what),
                                   "scalar", paper, ours, provenance, reason));
    };
    if (has(term, "K") && has(term, "L")) {
      add("scores", parts.scores, Provenance::kCounted, "");
    } else if (has(term, "K")) {
      add("projected keys and values", parts.projected, Provenance::kCounted, "");
    } else if (has(term, "B*L*H")) {
      add("input of the block", evaluate("B*L*H/N", is), Provenance::kFormula, "");
    } else if (has(term, "L")) {
      add("Q, K, V, output", shards + parts.length, Provenance::kCounted,
          "four tensors as in table 2, not two, unless K and V are let go after their projection");
    } else {
      add("4 matrices, 4 scalars per weight with Adam", 4 * evaluate("4*A*Z*H", is),
          Provenance::kFormula,
          "table 2 counts the same four matrices as 16 A Z H; the projections along the length are "
          "left out too");
    }
  }
}

// B L at which a difference that is linear in the length changes its sign.
template <class Difference>
double root(const RsaSetting& s, Difference&& difference) {
  const std::int64_t from = s.ranks, to = 2 * s.ranks;
  const double low = difference(from), high = difference(to);
  const double length =
      static_cast<double>(from) - low * static_cast<double>(to - from) / (high - low);
  return length * static_cast<double>(s.batch);
}

void add_crossovers(ReplayResult& result, const PaperTable& table, const PaperTable& crossovers,
                    RsaSetting s) {
  for (std::size_t row = 0; row < crossovers.rows(); ++row) {
    const std::string& block = crossovers.text(row, "block");
    Grade grade{};
    const std::string sequence = formula_of(table, block, "sequence parallel", grade);
    const std::string tensor = formula_of(table, block, "tensor parallel", grade);
    const auto at = [&](const std::string& formula, std::int64_t tokens) {
      s.tokens = tokens;
      return evaluate(formula, s.symbols());
    };
    const double paper = evaluate(crossovers.text(row, "tokens_in_batch"), s.symbols());
    const double ours =
        root(s, [&](std::int64_t tokens) { return at(sequence, tokens) - at(tensor, tokens); });
    // The squares of the length cancel in floating point.
    result.rows.push_back(row_of(s.label(),
                                 fmt::format("{}: B L above which RSA takes less, {}", block,
                                             crossovers.text(row, "tokens_in_batch")),
                                 "token", {paper, crossovers.grade(row), 1e-9 * paper}, ours,
                                 Provenance::kFormula));
    if (block != "attention") continue;
    const double counted = root(s, [&](std::int64_t tokens) {
      const double weights = evaluate("16*A*Z*H", s.symbols());
      const double rsa = scalars(s, "rsa", tokens, 0, false);
      return weights + rsa + 4 * at("B*L*H/N", tokens) - at(tensor, tokens);
    });
    // On few ranks the buffers outweigh the activations that tensor parallelism does not divide.
    if (counted > 0)
      result.rows.push_back(context_row(s.label(), "attention: the same with what rsa holds",
                                        "token", counted, Provenance::kCounted));
  }
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config), crossovers = table_of(config, "crossovers");
  const std::int64_t projected = config.integer("projected", 1, 1 << 20);
  const std::vector<std::int64_t> ranks = config.integers("ranks", 2, 4096);
  ReplayResult result;
  for (RsaSetting s : rsa_settings(config, projected)) {
    for (const std::int64_t n : ranks) {
      s.ranks = static_cast<int>(n);
      add_attention_terms(result, table, s);
      add_linformer_terms(result, table, s);
      add_crossovers(result, table, crossovers, s);
    }
    RsaSetting twice = s;
    twice.ranks *= 2;
    twice.tokens *= 2;
    bool divided = true;
    for (const bool backward : {false, true}) {
      divided = divided && scalars(s, "rsa_linformer", s.tokens, projected, backward) ==
                               scalars(twice, "rsa_linformer", twice.tokens, projected, backward);
    }
    result.rows.push_back(claim_row(s.label(), "Linformer: all terms with L are divided by N",
                                    divided, Provenance::kCounted,
                                    "memory grows when length and ranks double together"));
  }
  result.findings = {
      "The terms of scores, weights and projected keys and values are exact; those of Q, K, V and "
      "output leave out the buffers of the ring.",
      "In backward the scores count twice, and each rank holds dK and dV of the whole sequence "
      "before they are summed: B L H scalars each that no number of ranks divides.",
      "With these buffers the crossover of attention moves up, and on two ranks RSA takes more at "
      "every length.",
      "Table 3 counts the same four matrices eight times lower than table 2."};
  result.assumption =
      "Scalars in one type, Adam as four scalars per weight, two buffers per ring; rsa and "
      "rsa_linformer allocate what they count.";
  return result;
}

}  // namespace

const ReplayItem kRsaMemory{"rsa/memory", "RSA: memory of a block, and crossovers",
                            "Li et al. 2021, arXiv:2105.13120, tables 1 to 3, equation 5", run};

}  // namespace sp
