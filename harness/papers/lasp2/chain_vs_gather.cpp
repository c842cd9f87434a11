// LASP-1's chain of states against LASP-2's one gather: layer times over ranks and lengths.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "harness/papers/items.hpp"
#include "harness/papers/lasp2/layers.hpp"
#include "harness/papers/rows.hpp"
#include "optimized/algorithms/lasp1.hpp"
#include "optimized/algorithms/lasp2.hpp"

namespace sp {
namespace {

constexpr double kMilli = 1e-3, kMicro = 1e-6;

enum Way : std::uint8_t { kChain, kPrinted, kGather };
constexpr std::array<const Algorithm*, 3> kWays{&kLasp1, &kLasp1Printed, &kLasp2};

struct Point {
  std::array<Prediction, kWays.size()> ways;
  double chain_over_gather() const { return ways[kChain].total_s() / ways[kGather].total_s(); }
};

class Sweep {
 public:
  explicit Sweep(const ReplayContext& context)
      : model_(context), table_(table_of(context.config)), config_(context.config) {
    for (const std::int64_t ranks : config_.integers("ranks", 2, model_.platform.devices()))
      ranks_.push_back(static_cast<int>(ranks));
    tokens_ = config_.sizes("tokens", 1);
    std::int64_t done = 0;
    for (const int ranks : ranks_) {
      for (const std::int64_t tokens : tokens_) {
        Point& point = points_[{ranks, tokens}];
        for (std::size_t way = 0; way < kWays.size(); ++way)
          point.ways[way] = model_.layer(*kWays[way], tokens, ranks);
        context.progress(++done, std::ssize(ranks_) * std::ssize(tokens_));
      }
    }
  }
  ReplayResult result() const;

 private:
  const Point& at(int ranks, std::int64_t tokens) const { return points_.at({ranks, tokens}); }
  void rows(ReplayResult& result) const;
  void claims(ReplayResult& result) const;
  void curves(ReplayResult& result) const;
  void findings(ReplayResult& result) const;

  Lasp2Model model_;
  PaperTable table_;
  const Config& config_;
  std::vector<int> ranks_;
  std::vector<std::int64_t> tokens_;
  std::map<std::pair<int, std::int64_t>, Point> points_;
};

void Sweep::rows(ReplayResult& result) const {
  for (const int ranks : ranks_) {
    for (const std::int64_t tokens : {tokens_.front(), tokens_.back()}) {
      for (const Prediction& way : at(ranks, tokens).ways) {
        const std::string label =
            fmt::format("{}, {} tokens, {} ranks",
                        kWays[static_cast<std::size_t>(&way - at(ranks, tokens).ways.data())]->id,
                        kibi(tokens), ranks);
        for (const bool forward : {true, false}) {
          ReplayRow row = context_row(label, forward ? "forward" : "backward", "ms",
                                      (forward ? way.forward.time_s : way.backward.time_s) / kMilli,
                                      Provenance::kSimulated);
          row.band = way.band;
          result.rows.push_back(row);
        }
      }
    }
  }
}

void Sweep::claims(ReplayResult& result) const {
  for (std::size_t row = 0; row < table_.rows(); ++row) {
    if (!table_.text(row, "quantity").starts_with("LASP-2 ahead of all others")) continue;
    const int ranks = rank_count(table_, row, "gpus");
    for (const std::int64_t tokens : tokens_) {
      if (static_cast<double>(tokens) <= table_.number(row, "tokens")) continue;
      if (!points_.contains({ranks, tokens})) config_.refuse("ranks", "the paper's are missing");
      const double ratio = at(ranks, tokens).chain_over_gather();
      result.rows.push_back(claim_row(fmt::format("{} tokens, {} ranks", kibi(tokens), ranks),
                                      "LASP-2's layer is faster than LASP-1's", ratio > 1,
                                      Provenance::kSimulated,
                                      fmt::format("LASP-1 takes {:.3g} of its time", ratio)));
    }
  }
}

void Sweep::curves(ReplayResult& result) const {
  const int most = ranks_.back();
  for (std::size_t way = 0; way < kWays.size(); ++way) {
    ReplayCurve by_length{fmt::format("One layer on {} ranks, forward and backward", most),
                          kWays[way]->id,
                          "sequence length (tokens)",
                          "time (ms)",
                          false,
                          Provenance::kSimulated,
                          {},
                          {}};
    for (const std::int64_t tokens : tokens_) {
      by_length.xs.push_back(static_cast<double>(tokens));
      by_length.ys.push_back(at(most, tokens).ways[way].total_s() / kMilli);
    }
    result.curves.push_back(by_length);
    ReplayCurve by_ranks = by_length;
    by_ranks.plot =
        fmt::format("One layer at {} tokens, forward and backward", kibi(tokens_.front()));
    by_ranks.x = "ranks";
    by_ranks.xs.clear();
    by_ranks.ys.clear();
    for (const int ranks : ranks_) {
      by_ranks.xs.push_back(ranks);
      by_ranks.ys.push_back(at(ranks, tokens_.front()).ways[way].total_s() / kMilli);
    }
    result.curves.push_back(by_ranks);
  }
  for (const int ranks : ranks_) {
    ReplayCurve ratio{"LASP-1's layer time over LASP-2's",
                      fmt::format("{} ranks", ranks),
                      "sequence length (tokens)",
                      "ratio (1)",
                      false,
                      Provenance::kSimulated,
                      {},
                      {}};
    for (const std::int64_t tokens : tokens_) {
      ratio.xs.push_back(static_cast<double>(tokens));
      ratio.ys.push_back(at(ranks, tokens).chain_over_gather());
    }
    result.curves.push_back(ratio);
  }
}

void Sweep::findings(ReplayResult& result) const {
  std::string chain_wins;
  for (const auto& [where, point] : points_) {
    if (point.chain_over_gather() >= 1) continue;
    chain_wins += fmt::format("{}{} tokens on {} ranks", chain_wins.empty() ? "" : ", ",
                              kibi(where.second), where.first);
  }
  result.findings.push_back(
      chain_wins.empty()
          ? fmt::format("The gather is faster on every rank count from {} and at every length: "
                        "there is no crossover.",
                        ranks_.front())
          : "The chain is faster at " + chain_wins + "; everywhere else the gather is.");
  const int few = ranks_.front(), many = ranks_.back();
  const std::int64_t shortest = tokens_.front(), longest = tokens_.back();
  const auto per_hop = [&](Way way) {
    return (at(many, shortest).ways[way].total_s() - at(few, shortest).ways[way].total_s()) /
           (2.0 * (many - few)) / kMicro;
  };
  result.findings.push_back(fmt::format(
      "Between {} and {} ranks at {} tokens, where work is negligible, every rank more costs the "
      "chain {:.3g} us a pass, a hop that waits for the one before, and the gather {:.3g} us, the "
      "bytes of one more state.",
      few, many, kibi(shortest), per_hop(kChain), per_hop(kGather)));
  const auto gap = [&](std::int64_t tokens, Way way) {
    return (at(many, tokens).ways[way].total_s() - at(many, tokens).ways[kGather].total_s()) /
           kMilli;
  };
  result.findings.push_back(fmt::format(
      "On {} ranks the chain costs {:.3g} ms a layer more at {} tokens and {:.3g} ms at {}: a "
      "latency, not a rate, as long as the state is passed on first. As printed, with the output "
      "work before it, {:.3g} and {:.3g} ms.",
      many, gap(shortest, kChain), kibi(shortest), gap(longest, kChain), kibi(longest),
      gap(shortest, kPrinted), gap(longest, kPrinted)));
  result.findings.push_back(
      fmt::format("So the chain takes {:.3g} times as long at {} tokens and {:.3g} times at {}.",
                  at(many, shortest).chain_over_gather(), kibi(shortest),
                  at(many, longest).chain_over_gather(), kibi(longest)));
}

ReplayResult Sweep::result() const {
  ReplayResult result;
  rows(result);
  claims(result);
  curves(result);
  findings(result);
  result.assumption = fmt::format(
      "One layer of {} heads of {}, basic linear attention, bf16, states in f32; a message between "
      "nodes has {:.3g} us of latency and every operation starts within {:.3g} us. The steps of a "
      "collective are pipelined, those of the chain cannot be.",
      model_.heads, model_.head_size, model_.platform.fabric.latency_s / kMicro,
      model_.platform.comm.operation_s / kMicro);
  return result;
}

ReplayResult run(const ReplayContext& context) { return Sweep(context).result(); }

}  // namespace

const ReplayItem kLasp2ChainVsGather{
    "lasp2/chain-vs-gather", "LASP-1's chain against LASP-2's gather, 2 to 128 ranks",
    "Sun et al. 2025, LASP-2, arXiv:2502.07563, sections 3.4 and 4.2", run};

}  // namespace sp
