// RSA, section 3.2: what a rank sends, against what the algorithm counts, and against tensor
// parallelism.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <optional>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"
#include "harness/papers/rsa/setting.hpp"

namespace sp {
namespace {

double scalars(std::int64_t bytes) {
  return static_cast<double>(bytes) / static_cast<double>(size_of(DType::kF32));
}

double all_reduce_scalars(std::int64_t elements, int ranks) {
  return static_cast<double>(all_reduce_traffic(elements, 1, 0, ranks).bytes_sent);
}

// What is counted here for a row of the table; nothing for what no algorithm does.
std::optional<double> counted(const RsaSetting& s, const std::string& method,
                              const std::string& phase) {
  const auto rsa = [&] { return count("rsa", s.attention(s.tokens, 0), {.size = s.ranks}).most; };
  const std::int64_t activations = s.batch * s.tokens * s.hidden;
  if (method == "sequence parallel (RSA)") {
    if (phase == "attention forward") return scalars(rsa().forward.bytes_sent);
    if (phase == "attention backward") return scalars(rsa().backward.bytes_sent);
    // Outside attention every token stays where it is.
    if (phase == "MLP forward+backward") return 0;
    if (phase == "layer total")
      return scalars(rsa().forward.bytes_sent + rsa().backward.bytes_sent);
    if (phase.starts_with("weight-gradient"))
      return all_reduce_scalars(12 * s.hidden * s.hidden, s.ranks);
  }
  if (method == "tensor parallel (Megatron)") {
    const double one = all_reduce_scalars(activations, s.ranks);
    if (phase == "one all-reduce") return one;
    if (phase == "layer total") return 4 * one;
  }
  if (method == "sequence parallel (RSA + Linformer)" && phase == "attention forward") {
    const Counted linformer =
        count("rsa_linformer", s.attention(s.tokens, s.projected), {.size = s.ranks});
    return scalars(linformer.most.forward.bytes_sent);
  }
  return std::nullopt;
}

void add_rows(ReplayResult& result, const PaperTable& table, const RsaSetting& s) {
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string method = table.text(row, "method"), phase = table.text(row, "phase");
    const double paper = evaluate(table.text(row, "scalars"), s.symbols());
    const std::optional<double> ours = counted(s, method, phase);
    if (!ours) continue;
    result.rows.push_back(row_of(s.label(), method + ", " + phase, "scalar",
                                 {paper, table.grade(row), 0}, *ours, Provenance::kCounted));
  }
}

// How many all-reduces of the activations the traffic of RSA's attention equals.
void add_collectives(ReplayResult& result, const PaperTable& table, const RsaSetting& s) {
  const Measured cost = count("rsa", s.attention(s.tokens, 0), {.size = s.ranks}).most;
  const double one = all_reduce_scalars(s.batch * s.tokens * s.hidden, s.ranks);
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const bool forward = table.text(row, "phase") == "forward";
    const MeasuredPass& pass = forward ? cost.forward : cost.backward;
    result.rows.push_back(row_of(
        s.label(), "all-reduces that RSA equals, " + table.text(row, "phase"), "1",
        cell(table, row, "all_reduces"), scalars(pass.bytes_sent) / one, Provenance::kCounted,
        "section 3.2.1 contradicts the volumes of section 3.2.2, which are the counted ones"));
  }
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config), collectives = table_of(config, "collectives");
  const std::int64_t projected = config.integer("projected", 1, 1 << 20);
  const std::vector<std::int64_t> ranks = config.integers("ranks", 2, 4096);
  ReplayResult result;
  for (RsaSetting s : rsa_settings(config, projected)) {
    for (const std::int64_t n : ranks) {
      s.ranks = static_cast<int>(n);
      add_rows(result, table, s);
    }
    add_collectives(result, collectives, s);
    const double weights = all_reduce_scalars(12 * s.hidden * s.hidden, s.ranks);
    const double layer = *counted(s, "sequence parallel (RSA)", "layer total");
    result.findings.push_back(
        fmt::format("{}: the all-reduce of weight gradients, which the comparison leaves out, adds "
                    "{:.1f} % to what RSA sends; tensor parallelism needs none in its group.",
                    s.model, 100 * weights / layer));
  }
  result.findings.push_back(
      "Per layer RSA sends exactly what the four all-reduces of tensor parallelism send; with "
      "reduce-scatters in place of its two all-reduces it would send three quarters of it.");
  result.assumption =
      "Scalars sent by one rank per layer, without the sum of weight gradients; collectives count "
      "in their bandwidth-optimal form.";
  return result;
}

}  // namespace

const ReplayItem kRsaCommunication{"rsa/communication",
                                   "RSA: traffic per layer against tensor parallelism",
                                   "Li et al. 2021, arXiv:2105.13120, section 3.2", run};

}  // namespace sp
