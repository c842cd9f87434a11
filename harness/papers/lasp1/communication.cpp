// LASP-1: traffic of a layer against other kinds of sequence parallelism, and claims that follow
// from counts.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <optional>
#include <utility>

#include "harness/papers/counted.hpp"
#include "harness/papers/formula.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"
#include "optimized/algorithms/registry.hpp"

namespace sp {
namespace {

struct Setting {
  std::int64_t batch, tokens, hidden, heads;
  int ranks;
  std::int64_t head_size() const { return hidden / heads; }
  Shape shape() const { return {batch, tokens, heads, heads, head_size(), head_size()}; }
  std::string label() const { return fmt::format("{}K tokens, {} ranks", tokens / 1024, ranks); }
  Symbols symbols() const {
    const auto number = [](std::int64_t value) { return static_cast<double>(value); };
    return {{"B", number(batch)},
            {"N", number(tokens)},
            {"d", number(hidden)},
            {"h", number(heads)},
            {"T", number(ranks)}};
  }
};

double scalars(std::int64_t f32_bytes) { return static_cast<double>(f32_bytes) / 4; }

Counted linear(const Setting& s, const char* algorithm) {
  return count(algorithm, linear_problem(Module::kBasic, s.shape(), DType::kF32),
               {.size = s.ranks});
}

// Scalars that a rank sends in a forward pass of a layer.
std::optional<double> counted(const Setting& s, const std::string& method) {
  const World world{.size = s.ranks};
  const Problem softmax = softmax_problem(s.shape(), DType::kF32, false);
  const std::int64_t all = s.batch * s.tokens * s.hidden, part = all / s.ranks;
  const auto gather_and_scatter = [&] {
    return static_cast<double>(all_gather_traffic(part, s.ranks).bytes_sent +
                               scatter_traffic(all, part, s.ranks).bytes_sent);
  };
  if (method == "LASP") return scalars(linear(s, "lasp1").most.forward.bytes_sent);
  if (method == "Ring Attention")
    return scalars(count("ring/contiguous", softmax, world).most.forward.bytes_sent);
  if (method == "DeepSpeed-Ulysses")
    return scalars(count("ulysses", softmax, world).most.forward.bytes_sent);
  if (method == "Megatron-SP (attention block only)") return gather_and_scatter();
  if (method == "Megatron-SP" || method == "Megatron-SP (attention + MLP)")
    return 2 * gather_and_scatter();
  if (method == "Tensor parallel (attention + MLP)")
    return 2 * static_cast<double>(all_reduce_traffic(all, 1, 0, s.ranks).bytes_sent);
  return std::nullopt;
}

// What a recollection of the table seems to have wrong; no verdict on the paper follows from it.
std::string doubt_about(const std::string& method) {
  const std::string unread = "the paper's table, which could not be read: as recalled, it ";
  if (method == "Ring Attention") return unread + "divides by h, yet all heads travel";
  if (method == "DeepSpeed-Ulysses")
    return unread + "leaves out that a share of (T-1)/T leaves a rank";
  return unread + "adds up to other than two all-gathers and two reduce-scatters of all tokens";
}

void add_claims(ReplayResult& result, const Setting& s) {
  const Counted lasp = linear(s, "lasp1");
  Setting longer = s;
  longer.tokens *= 2;
  result.rows.push_back(
      claim_row(s.label(), "LASP-C4: traffic does not depend on the length",
                linear(longer, "lasp1").most.forward.bytes_sent == lasp.most.forward.bytes_sent,
                Provenance::kCounted, "twice the tokens send another number of bytes"));

  Setting wide = s;
  wide.ranks = static_cast<int>(4 * s.heads);
  const Algorithm* ulysses = find_algorithm("ulysses");
  const Problem linear_one = linear_problem(Module::kBasic, wide.shape(), DType::kF32);
  const Problem softmax = softmax_problem(wide.shape(), DType::kF32, false);
  const World many{.size = wide.ranks};
  result.rows.push_back(
      claim_row(fmt::format("{} heads, {} ranks", s.heads, wide.ranks),
                "LASP-C6: ranks are not limited by heads, as those of Ulysses are",
                find_algorithm("lasp1")->supports(linear_one, many).has_value() &&
                    !ulysses->supports(softmax, many).has_value(),
                Provenance::kCounted, "one of them takes what the other should"));

  Setting both = longer;
  both.ranks *= 2;
  const Counted doubled = linear(both, "lasp1");
  result.rows.push_back(
      claim_row(s.label(), "LASP-C8: memory per rank stays when tokens and ranks double",
                doubled.most.forward.peak_bytes == lasp.most.forward.peak_bytes &&
                    doubled.most.backward.peak_bytes == lasp.most.backward.peak_bytes,
                Provenance::kCounted, "it does not"));

  const std::string state = fmt::format("{} heads of {}", s.heads, s.head_size());
  result.rows.push_back(context_row(state, "state that travels, f32", "MiB",
                                    static_cast<double>(lasp.most.forward.bytes_sent) / (1 << 20),
                                    Provenance::kCounted));
  result.rows.push_back(context_row(s.label(), "dependent messages per pass, all ranks", "1",
                                    static_cast<double>(lasp.total.forward.messages_sent),
                                    Provenance::kCounted));
}

// Tokens per rank from which the chain sends less than the all-to-all.
double crossover(const Setting& s) {
  const Problem softmax = softmax_problem(s.shape(), DType::kF32, false);
  const double chunk = static_cast<double>(s.tokens) / s.ranks;
  const double per_token =
      scalars(count("ulysses", softmax, {.size = s.ranks}).most.forward.bytes_sent) / chunk;
  return scalars(linear(s, "lasp1").most.forward.bytes_sent) / per_token;
}

ReplayResult run(const ReplayContext& context) {
  const Config& config = context.config;
  const PaperTable table = table_of(config);
  Setting s{config.integer("batch", 1, 1 << 16), 0, config.integer("hidden", 1, 1 << 20),
            config.integer("heads", 1, 1 << 10), 0};
  const std::vector<std::int64_t> lengths = config.sizes("tokens", 1);
  const std::vector<std::int64_t> ranks = config.integers("ranks", 2, s.heads);
  ReplayResult result;
  for (const std::int64_t tokens : lengths) {
    s.tokens = tokens;
    for (const std::int64_t n : ranks) {
      s.ranks = static_cast<int>(n);
      for (std::size_t row = 0; row < table.rows(); ++row) {
        const std::string& method = table.text(row, "method");
        const std::optional<double> ours = counted(s, method);
        if (!ours) config.refuse("table", fmt::format("unknown method '{}'", method));
        const PaperValue paper{evaluate(table.text(row, "scalars"), s.symbols()), table.grade(row),
                               0};
        ReplayRow judged_row = row_of(s.label(), method + ", " + table.text(row, "scalars"),
                                      "scalar", paper, *ours, Provenance::kCounted);
        if (paper.grade == Grade::kSecondary &&
            judged_row.verdict == ClaimVerdict::kNotReproduced) {
          judged_row.verdict = ClaimVerdict::kNotCheckable;
          judged_row.reason = doubt_about(method);
        }
        result.rows.push_back(std::move(judged_row));
      }
    }
  }
  add_claims(result, s);
  result.rows.push_back(context_row(s.label(),
                                    "tokens per rank from which LASP sends less than "
                                    "Ulysses",
                                    "token", crossover(s), Provenance::kCounted));
  result.findings = {
      "A rank sends one state per layer and pass, whatever the length; all other methods send in "
      "proportion to the tokens.",
      fmt::format(
          "LASP sends less than Ulysses from {:.0f} tokens per rank on: always, in practice. "
          "Its price is a chain of T-1 dependent hops, which no count of bytes shows.",
          crossover(s)),
      "Of the paper's table as recalled, only LASP's own entry agrees with what is sent; the "
      "others "
      "leave out factors of h or of (T-1)/T, which only the table itself can settle."};
  result.assumption =
      "Forward pass of one layer; the paper's table could not be read: its entries are those of a "
      "recollection (grade secondary), beside derived ones. States in the accumulator type.";
  return result;
}

}  // namespace

const ReplayItem kLasp1Communication{"lasp1/communication", "LASP-1: traffic per layer",
                                     "Sun et al. 2024, arXiv:2404.02882, communication table", run};

}  // namespace sp
