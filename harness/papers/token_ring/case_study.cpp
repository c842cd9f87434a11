// TokenRing, case study: step times, exchanges and totals on 4 A10, from simulated timelines.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "harness/papers/counted.hpp"
#include "harness/papers/items.hpp"
#include "harness/papers/rows.hpp"
#include "harness/papers/token_ring/traced.hpp"

namespace sp {
namespace {

constexpr double kMilli = 1e-3, kGiga = 1e9;
constexpr double kPictureError = 0.05;  // of a bar, by the note of its table

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// What the tables ask for, and how our rows become judged ones.
class CaseStudy {
 public:
  CaseStudy(const ReplayContext& context, ReplayResult& result)
      : config_(context.config),
        result_(result),
        platform_(context.platform("platform")),
        problem_(problem()),
        ranks_(static_cast<int>(config_.integer("ranks", 2, platform_.devices()))),
        ring_(platform_, "ring/zigzag", problem_, ranks_),
        token_ring_(platform_, "token_ring/zigzag", problem_, ranks_),
        one_(platform_, "ring/zigzag", problem_, 1),
        pictured_(static_cast<int>(config_.integer("pictured", 0, ranks_ - 1))) {}

  void stated();
  void profile();
  void picture();
  void totals();
  void findings();

 private:
  std::string rates() const;
  std::string merges() const;
  Problem problem() const {
    const std::int64_t heads = config_.integer("heads", 1, 1024);
    const std::int64_t size = config_.integer("head_size", 1, 1024);
    return softmax_problem({1, config_.size("tokens", 1), heads, heads, size, size}, DType::kF16,
                           true);
  }
  // `ours` in seconds, the table in milliseconds.
  void add(std::string label, std::string quantity, PaperValue paper, double ours, bool fitted,
           std::string reason = {}) {
    if (paper.grade == Grade::kPicture) paper.rounding = kPictureError * paper.value;
    ReplayRow row = context_row(std::move(label), std::move(quantity), "ms", ours / kMilli,
                                Provenance::kSimulated);
    row.paper = paper.value;
    row.grade = paper.grade;
    row.rounding = paper.rounding;
    row.band = platform_.band;
    row.fitted = fitted;
    const ReplayRow plain = judged(row);
    row.reason = std::move(reason);
    result_.rows.push_back(plain.verdict == ClaimVerdict::kNotReproduced ? judged(row) : plain);
    if (!fitted) errors_.push_back(std::abs(plain.error()));
  }
  // A result travels during the step after the one that computed it.
  double picture_exchange(const TracedForward& run, const std::string& lane, int step) const {
    return lane == "send_q" ? run.exchange(pictured_, "q", step)
                            : run.exchange(pictured_, "out", step - 1);
  }
  double attention(const TracedForward& run, int rank, std::size_t step) const {
    const std::vector<double> all = run.kernels(rank, "attention");
    if (step >= all.size()) throw Error(ErrorKind::kUsage, "a table names a step too many");
    return all[step];
  }
  // A step lasts as long as its slowest device.
  double slowest_attention(const TracedForward& run, std::size_t step) const {
    double most = 0;
    for (int rank = 0; rank < ranks_; ++rank) most = std::max(most, attention(run, rank, step));
    return most;
  }
  double round() const {
    std::vector<double> all;
    for (int rank = 0; rank < ranks_; ++rank) {
      for (int step = 0; step + 1 < ranks_; ++step) all.push_back(ring_.exchange(rank, "k", step));
    }
    return mean(all);
  }

  const Config& config_;
  ReplayResult& result_;
  Platform platform_;
  Problem problem_;
  int ranks_;
  TracedForward ring_, token_ring_, one_;
  int pictured_;                // device that the picture shows
  std::vector<double> errors_;  // of rows that were not fitted
};

void CaseStudy::stated() {
  const PaperTable table = table_of(config_, "stated");
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const PaperValue paper = cell(table, row, "time");
    const std::string& step = table.text(row, "step");
    if (table.text(row, "scheme") == "ring") {
      // The same exchanges as in the profile.
      add("ring, as stated", "every exchange", paper, round(), true);
    } else {
      const auto index = static_cast<std::size_t>(table.number(row, "step"));
      add("token_ring, as stated", fmt::format("attention of step {}", step), paper,
          slowest_attention(token_ring_, index), index == 2);
    }
  }
}

void CaseStudy::profile() {
  const PaperTable table = table_of(config_, "profile");
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const PaperValue paper = cell(table, row, "duration");
    const int rank = static_cast<int>(table.number(row, "device"));
    const int step = static_cast<int>(table.number(row, "step"));
    const std::string label = fmt::format("ring, device {}", rank);
    if (table.text(row, "kernel") == "sendrecv_kv") {
      add(label, fmt::format("exchange of step {}", step), paper, ring_.exchange(rank, "k", step),
          rank == 0);
      continue;
    }
    add(label, fmt::format("attention of step {}", step), paper,
        attention(ring_, rank, static_cast<std::size_t>(step)), rank == 0);
    if (step + 1 < ranks_) continue;
    PaperValue end = cell(table, row, "start");
    end.value += paper.value;
    add(label, "end of the last attention", end, ring_.end_of_last(rank, "attention"), false);
  }
}

void CaseStudy::picture() {
  const PaperTable table = table_of(config_, "timeline");
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const PaperValue paper = cell(table, row, "duration");
    const std::string& lane = table.text(row, "lane");
    const int step = static_cast<int>(table.number(row, "step"));
    if (lane == "attn") {
      add("token_ring, picture", fmt::format("attention of step {}", step), paper,
          attention(token_ring_, pictured_, static_cast<std::size_t>(step)), step == 2);
      continue;
    }
    const bool queries = lane == "send_q";
    const double ours = picture_exchange(token_ring_, lane, step);
    add("token_ring, picture",
        fmt::format("exchange of {} in step {}", queries ? "queries" : "results", step), paper,
        ours, false,
        "this exchange is faster in the picture than those of the profile; no one rate of a "
        "channel "
        "gives both");
  }
}

void CaseStudy::totals() {
  const PaperTable table = table_of(config_, "totals");
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const PaperValue paper = cell(table, row, "time");
    const std::string& scheme = table.text(row, "scheme");
    const std::string& quantity = table.text(row, "quantity");
    if (scheme == "one_device") {
      add("one device", quantity, paper, one_.kernels(0, "attention").front(), false,
          "the kernel is slower on one long sequence than on blocks, which the model does not "
          "have");
    } else if (quantity == "end" && scheme == "token_ring") {
      add("token_ring, picture", "end", paper, token_ring_.end(pictured_), false);
    } else if (quantity == "end") {
      add("ring, device 0", "end", paper, ring_.end(0), false);
    } else if (quantity == "cast") {
      add("ring", quantity, paper, ring_.kernels(0, "copy").back(), false);
    } else {
      const std::vector<double> merges = ring_.kernels(0, "merge");
      const bool shortest = quantity == "shortest merge";
      add("ring", quantity, paper,
          shortest ? *std::min_element(merges.begin(), merges.end())
                   : *std::max_element(merges.begin(), merges.end()),
          false,
          "our ring merges every row of a step; the paper's code merges the half that saw keys");
    }
  }
}

// What the picture's bars say of the rate of a channel, and what would follow from it.
std::string CaseStudy::rates() const {
  const PaperTable table = table_of(config_, "timeline");
  std::map<int, std::vector<double>> by_step;  // one rate per exchange
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string& lane = table.text(row, "lane");
    if (lane == "attn") continue;
    const int step = static_cast<int>(table.number(row, "step"));
    const double bytes = lane == "send_q" ? token_ring_.most_bytes(pictured_, "q", step)
                                          : token_ring_.most_bytes(pictured_, "out", step - 1);
    by_step[step].push_back(bytes / (table.number(row, "duration") * kMilli));
  }
  std::vector<double> alone;
  double together = 0;
  for (const auto& [step, rates] : by_step) {
    if (rates.size() == 1) alone.push_back(rates.front() / kGiga);
    if (rates.size() > 1)
      together = std::max(together, std::accumulate(rates.begin(), rates.end(), 0.0) / kGiga);
  }
  const double slowest = *std::min_element(alone.begin(), alone.end());
  const double fastest = *std::max_element(alone.begin(), alone.end());
  Platform platform = platform_;
  platform.comm.channel_bandwidth = fastest * kGiga;
  const TracedForward faster(platform, "token_ring/zigzag", problem_, ranks_);
  return fmt::format(
      "The bars of the picture imply {:.1f} to {:.1f} GB/s for an exchange alone and {:.1f} GB/s "
      "for two together, where the ring's twelve have {:.1f} GB/s. At {:.1f} GB/s TokenRing would "
      "end after {:.1f} ms instead of {:.1f} ms, with the first exchange "
      "too short by {:.0f} %.",
      slowest, fastest, together, platform_.comm.channel_bandwidth / kGiga, fastest,
      faster.end(pictured_) / kMilli, token_ring_.end(pictured_) / kMilli,
      100 * (1 - faster.exchange(pictured_, "q", 0) / token_ring_.exchange(pictured_, "q", 0)));
}

// Where only half the queries see a block, our ring merges all rows and our TokenRing that half.
std::string CaseStudy::merges() const {
  const auto shortest = std::ranges::find(result_.rows, "shortest merge", &ReplayRow::quantity);
  if (shortest == result_.rows.end())
    throw Error(ErrorKind::kUsage, "the table of totals has no shortest merge");
  double half = token_ring_.kernels(pictured_, "merge").front();
  for (int rank = 0; rank < ranks_; ++rank) {
    for (const double merge : token_ring_.kernels(rank, "merge")) half = std::min(half, merge);
  }
  return fmt::format(
      "The shortest merge is one of half the rows: TokenRing, which sends back and merges only the "
      "half that saw keys, merges it in {:.2f} ms on the same platform, {:+.0f} % off the printed "
      "{:.2f} ms.",
      half / kMilli, 100 * (half / kMilli / shortest->paper - 1), shortest->paper);
}

void CaseStudy::findings() {
  std::sort(errors_.begin(), errors_.end());
  const double ring = ring_.prediction().forward.time_s;
  const double token_ring = token_ring_.prediction().forward.time_s;
  Platform wires = platform_;
  wires.comm.channel_bandwidth = 0;
  const double ring_wires =
      TracedForward(wires, "ring/zigzag", problem_, ranks_).prediction().forward.time_s;
  const double token_ring_wires =
      TracedForward(wires, "token_ring/zigzag", problem_, ranks_).prediction().forward.time_s;
  result_.findings = {
      fmt::format("{} values that the calibration has not seen agree; their median error is {:.1f} "
                  "%, the worst {:.0f} %.",
                  reproduced_of(result_), 100 * errors_[errors_.size() / 2], 100 * errors_.back()),
      fmt::format("The ring is bound by its exchange: {:.2f} ms a round beside {:.2f} ms of "
                  "attention. Until the slowest device ends, the ring takes {:.1f} ms and "
                  "TokenRing {:.1f} ms.",
                  round() / kMilli, slowest_attention(ring_, 1) / kMilli, ring / kMilli,
                  token_ring / kMilli),
      fmt::format("What binds the ring is the rate of one channel, {:.1f} GB/s, not PCIe: if a "
                  "channel could fill its port, the ring would take {:.1f} ms and TokenRing {:.1f} "
                  "ms.",
                  platform_.comm.channel_bandwidth / kGiga, ring_wires / kMilli,
                  token_ring_wires / kMilli),
      "Two thread blocks of 72 multiprocessors explain what attention loses beside one exchange "
      "(2 %), not what it loses beside two (a third): that share is fitted to step 2, and its "
      "cause is not known.",
      rates(),
      merges(),
  };
  result_.assumption =
      "One rate of messages per communicator, and one share of compute speed per number of "
      "communicators at work, fitted on device 0 of the profile and on step 2; no skew between "
      "devices. TokenRing in fp16, the ring in bf16 in the paper, both in fp16 here.";
}

ReplayResult run(const ReplayContext& context) {
  ReplayResult result;
  CaseStudy study(context, result);
  study.stated();
  study.profile();
  study.picture();
  study.totals();
  study.findings();
  return result;
}

}  // namespace

const ReplayItem kTokenRingCaseStudy{
    "token_ring/case-study", "TokenRing: the case study on 4 A10",
    "Wang, Liu, Li, Jiang 2024, TokenRing, arXiv:2412.20501, case study and published profile",
    run};

}  // namespace sp
